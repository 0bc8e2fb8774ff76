package hot

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/opened"
)

// BenchmarkHost looks at this host as it is.
func BenchmarkHost(b *testing.B) {
	for _, passes := range []int{1, 2} {
		b.Run(fmt.Sprint(passes, "-passes"), func(b *testing.B) { look(b, 1<<40, Options{Passes: passes}) })
	}
}

// BenchmarkCrowd looks at 2,000 processes more with 25 descriptors each on the
// volume, of which 5 are open for writing.
func BenchmarkCrowd(b *testing.B) {
	v := scratch.New(b, "ext4", 64*scratch.MiB)
	var files []*os.File
	for i := range 25 {
		flags := os.O_RDONLY
		if i%5 == 0 {
			flags = os.O_RDWR
		}
		f, err := os.OpenFile(filepath.Join(v.Dir, fmt.Sprint("file", i)), flags|os.O_CREATE, 0o600)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for range 2000 {
		cmd := exec.CommandContext(ctx, "sleep", "600")
		cmd.ExtraFiles = files
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		defer func() {
			cancel()
			_ = cmd.Wait()
		}()
	}
	dev := deviceOf(b, v.Dir)
	p, err := opened.NewProber()
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	for name, o := range map[string]Options{
		"1-pass": {Passes: 1}, "frozen": {Frozen: true, Passes: 1}, "2-passes": {},
		"asking": {Shielded: func(fd int) bool { is, err := p.Emits(fd); return err == nil && is }},
	} {
		b.Run(name, func(b *testing.B) { look(b, dev, o) })
	}
}

func look(b *testing.B, dev uint64, o Options) {
	found := 0
	for b.Loop() {
		us, err := Scan(b.Context(), dev, o)
		if err != nil {
			b.Fatal(err)
		}
		found = len(us)
	}
	b.ReportMetric(float64(found), "uses")
}
