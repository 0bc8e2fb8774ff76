package repository

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/kopia/kopia/repo/compression"
)

// What our compressors write, kopia's own reads: of every size around its
// blocks and windows, by several at once.
func TestCompressorsWriteWhatKopiaReads(t *testing.T) {
	register()
	noise := make([]byte, 3*largestContent)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	for _, name := range []compression.Name{compressor, compressorLarge} {
		c, ok := compression.ByName[name].(*economical)
		if !ok || compression.ByHeaderID[c.HeaderID()] != c {
			t.Fatalf("%s is not ours", name)
		}
		for _, size := range []int{0, 1, 1000, 128<<10 - 1, 128 << 10, 128<<10 + 1, largestContent, largestContent + 1, 3 * largestContent} {
			for what, content := range map[string][]byte{"text": []byte(strings.Repeat("so it goes. ", size/12+1)[:size]), "noise": noise[:size]} {
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						var packed, back bytes.Buffer
						if err := c.Compress(&packed, bytes.NewReader(content)); err != nil {
							t.Errorf("%s, %d bytes of %s: %v", name, size, what, err)
							return
						}
						if what == "text" && size > 1000 && packed.Len() > size/10 {
							t.Errorf("%s: %d bytes of text became %d", name, size, packed.Len())
						}
						if err := c.Compressor.Decompress(&back, &packed, true); err != nil || !bytes.Equal(back.Bytes(), content) {
							t.Errorf("%s, %d bytes of %s come back as %d others: %v", name, size, what, back.Len(), err)
						}
					})
				}
				wg.Wait()
			}
		}
	}
}
