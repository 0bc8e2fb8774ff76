//go:build vm

package dm

import (
	"bytes"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
)

// mostWait is the longest that a live write may wait: on a machine that is
// translated and shared, twice what is promised (doc/design/007).
const mostWait = 2 * time.Second

// A writer writes to a file of the live volume, again and again over all of it.
type writer struct {
	quit, ended chan struct{}
	err         error
	longest     time.Duration
	bytes       atomic.Int64
}

func (r *rig) write(size int64) *writer {
	f, err := os.OpenFile(r.path("written"), os.O_RDWR, 0)
	r.must(err)
	w := &writer{quit: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		defer f.Close()
		piece := bytes.Repeat([]byte{1}, 64<<10)
		for at := int64(0); ; at = (at + int64(len(piece))) % size {
			select {
			case <-w.quit:
				return
			default:
			}
			began := time.Now()
			if _, w.err = f.WriteAt(piece, at); w.err != nil {
				return
			}
			if w.bytes.Add(int64(len(piece)))%(1<<20) == 0 {
				if w.err = f.Sync(); w.err != nil {
					return
				}
			}
			w.longest = max(w.longest, time.Since(began))
		}
	}()
	return w
}

func (w *writer) end(t *testing.T) {
	t.Helper()
	close(w.quit)
	<-w.ended
	if w.err != nil {
		t.Errorf("a live write failed: %v", w.err)
	}
	t.Logf("%d MiB were written, the longest write with its sync took %v", w.bytes.Load()>>20, w.longest)
	if w.longest > mostWait {
		t.Errorf("a live write waited for %v", w.longest)
	}
}

// fill makes the file that a writer writes over.
func (r *rig) fill(size int64) {
	r.must(os.WriteFile(r.path("written"), bytes.Repeat([]byte{2}, int(size)), 0o600))
	r.must(os.WriteFile(r.path("small"), []byte("small"), 0o600))
}

// A cache file that is full ends its snapshot, and nothing else.
func TestFull(t *testing.T) {
	r := newRig(t, plain, "ext4")
	was := describe(t, nil)
	var err error
	r.p, err = New(host).WithCache(snapshot.CacheChoice{Maximum: "50M"})
	r.must(err)
	const size = 150 << 20
	r.fill(size)
	s := r.take()
	if b, err := os.ReadFile(filepath.Join(s.Root(), "small")); err != nil || string(b) != "small" {
		t.Errorf("at first it reads %q, %v", b, err)
	}
	w := r.write(size)
	r.await("the end of the snapshot", func() bool { return s.Err() != nil })
	r.await("three times the cache file", func() bool {
		select {
		case <-w.ended:
			return true
		default:
			return w.bytes.Load() >= size
		}
	})
	w.end(t)
	if code := problem.CodeOf(s.Err()); code != problem.CacheFull {
		t.Errorf("it ended with %s: %v", code, s.Err())
	}
	if c := snapshot.CacheOf(s); c == nil || c.Used != c.Maximum || c.Maximum != 50<<20 {
		t.Errorf("the cache file: %+v", c)
	}
	if _, err := os.ReadDir(s.Root()); err == nil {
		t.Error("it can still be read")
	}
	r.must(s.Release(t.Context()))
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// A volume that the cache file lies on and that others fill up ends the snapshot,
// too.
func TestCarrierFull(t *testing.T) {
	r := newRig(t, plain, "ext4")
	was := describe(t, nil)
	carrier := scratch.New(t, "ext4", 200*scratch.MiB)
	var err error
	r.p, err = New(host).WithCache(snapshot.CacheChoice{Dir: carrier.Dir})
	r.must(err)
	const size = 150 << 20
	r.fill(size)
	s := r.take()
	w := r.write(size)
	filler, err := os.Create(filepath.Join(carrier.Dir, "filler"))
	r.must(err)
	defer filler.Close()
	for err == nil && s.Err() == nil {
		_, err = filler.Write(make([]byte, 64<<10))
	}
	r.await("the end of the snapshot", func() bool { return s.Err() != nil })
	w.end(t)
	if code := problem.CodeOf(s.Err()); code != problem.CacheFull {
		t.Errorf("it ended with %s: %v", code, s.Err())
	}
	r.must(s.Release(t.Context()))
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}
