package cow

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"stillpoint/internal/snapshot"
)

// readAll reads a file of a Reader whole.
func readAll(d snapshot.Reader, name string) ([]byte, snapshot.Item, error) {
	top, err := d.Top()
	if err != nil {
		return nil, top, err
	}
	i, err := d.Lookup(top.Info.Inode, name)
	if err != nil {
		return nil, i, err
	}
	c, err := d.Open(i)
	if err != nil {
		return nil, i, err
	}
	b := make([]byte, i.Info.Size)
	_, err = c.ReadAt(b, 0)
	return b, i, errors.Join(err, c.Verify(), c.Close())
}

// Readers and writers come to the same files at the same time: nobody ever reads
// what was written after the instant.
func TestDirectRace(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		const files, size = 400, 64 << 10
		original, other := bytes.Repeat([]byte("A"), size), bytes.Repeat([]byte("B"), 4096)
		path := func(i int64) string { return r.path(fmt.Sprint("file", i)) }
		for i := range int64(files) {
			r.must(os.WriteFile(path(i), original, 0o644))
		}
		s := r.take(nil)
		var all sync.WaitGroup
		var next, read, live atomic.Int64
		errs := make(chan error, 100)
		for _, d := range []snapshot.Reader{r.reader(s), r.lent(s)} {
			all.Go(func() {
				for n := int64(0); n < files && len(errs) == 0; n = next.Load() { // the one that is about to change
					got, item, err := readAll(d, fmt.Sprint("file", n))
					read.Add(1)
					if err != nil {
						errs <- err
					} else if at := bytes.IndexByte(got, 'B'); at >= 0 {
						errs <- fmt.Errorf("file%d is wrong at %d", n, at)
					}
					if !s.flags.Has(item.Info.Inode) {
						live.Add(1)
					}
				}
			})
		}
		for range 2 {
			all.Go(func() {
				for n := next.Add(1) - 1; n < files && len(errs) == 0; n = next.Add(1) - 1 {
					f, err := os.OpenFile(path(n), os.O_WRONLY, 0)
					if err == nil {
						_, err = f.WriteAt(other, rand.Int64N(size/4096)*4096)
						err = errors.Join(err, f.Close())
					}
					if err != nil {
						errs <- err
					}
				}
			})
		}
		all.Wait()
		close(errs)
		for err := range errs {
			t.Error(err)
		}
		t.Logf("%d readings of %d were over before the file was let change", live.Load(), read.Load())
		r.must(s.Err())
	})
}
