//go:build vm

package dm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
)

// mostWait is the longest that a live write may wait: on a machine that is
// translated and shared, twice what is promised (doc/design/007). Where the machine does
// not let even another volume wait for long, it is what is promised.
const (
	mostWait = 2 * time.Second
	promised = time.Second
	idle     = 300 * time.Millisecond
)

// A writer writes to a file of the live volume, again and again over all of it.
type writer struct {
	quit, ended chan struct{}
	err         error
	longest     time.Duration
	at          time.Time   // when that began
	afresh      atomic.Bool // what was before matters no more
	bytes       atomic.Int64
	size        atomic.Int64 // of the part that is written to
}

func (r *rig) write(size int64) *writer {
	f, err := os.OpenFile(r.path("written"), os.O_RDWR, 0)
	r.must(err)
	w := &writer{quit: make(chan struct{}), ended: make(chan struct{})}
	w.size.Store(size)
	go func() {
		defer close(w.ended)
		defer f.Close()
		piece := bytes.Repeat([]byte{1}, 64<<10)
		for at := int64(0); ; at = (at + int64(len(piece))) % w.size.Load() {
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
			if w.afresh.CompareAndSwap(true, false) {
				w.longest = 0
			}
			if took := time.Since(began); took > w.longest {
				w.longest, w.at = took, began
			}
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
}

// fill makes the file that a writer writes over.
func (r *rig) fill(size int64) {
	r.must(os.WriteFile(r.path("written"), bytes.Repeat([]byte{2}, int(size)), 0o600))
	r.must(os.WriteFile(r.path("small"), []byte("small"), 0o600))
}

// A pulse writes a little to another volume, to know what the machine itself lets wait.
func (r *rig) pulse(dir string) *writer {
	f, err := os.Create(filepath.Join(dir, "pulse"))
	r.must(err)
	w := &writer{quit: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		defer f.Close()
		for n := byte(0); ; n++ {
			select {
			case <-w.quit:
				return
			case <-time.After(20 * time.Millisecond):
			}
			began := time.Now()
			if _, w.err = f.WriteAt([]byte{n}, 0); w.err == nil {
				w.err = f.Sync()
			}
			if w.err != nil {
				return
			}
			w.bytes.Add(1)
			w.longest = max(w.longest, time.Since(began))
		}
	}()
	return w
}

// A cache file that is full ends its snapshot, and nothing else. Who writes all the time,
// from before the instant on, has no error, and waits for no longer than is promised.
func TestFull(t *testing.T) {
	r := newRig(t, plain, "ext4")
	other := volumes(t, plain, "ext4", 1, 50)
	was := describe(t, nil)
	var err error
	r.p, err = New(host).WithCache(snapshot.CacheChoice{Maximum: "50M"})
	r.must(err)
	const size = 150 << 20
	r.fill(size)
	run(t, "sync", "--file-system", r.vs[0].Dir)
	w, machine := r.write(4<<20), r.pulse(other[0].Dir)
	r.await("the writer", func() bool { return w.bytes.Load() > 8<<20 })
	w.afresh.Store(true)
	before := time.Now()
	s, err := r.try()
	for tries := 1; problem.CodeOf(err) == problem.FreezeBlocked && tries < 10; tries++ {
		// Who writes has waited for the guard, on a machine with too much to do.
		since := w.bytes.Load()
		r.await("the writer", func() bool { return w.bytes.Load() > since+2<<20 })
		w.afresh.Store(true)
		r.await("that it is forgotten", func() bool { return !w.afresh.Load() })
		before = time.Now()
		s, err = r.try()
	}
	r.must(err)
	taken, held := time.Now(), s.Parts()[0].Held
	if b, err := os.ReadFile(filepath.Join(s.Root(), "small")); err != nil || string(b) != "small" {
		t.Errorf("at first it reads %q, %v", b, err)
	}
	w.size.Store(size)
	began := w.bytes.Load()
	r.await("the end of the snapshot", func() bool { return s.Err() != nil })
	r.await("three times the cache file", func() bool {
		select {
		case <-w.ended:
			return true
		default:
			return w.bytes.Load()-began >= size
		}
	})
	w.end(t)
	machine.end(t)
	t.Logf("the longest began %v after the beginning of Prepare, the volume was suspended for %v, and Resume ended after %v", w.at.Sub(before), held, taken.Sub(before))
	most := mostWait
	if machine.longest < idle {
		most = promised
	}
	if w.longest > most {
		t.Errorf("a live write waited for %v", w.longest)
	}
	if code := problem.CodeOf(s.Err()); code != problem.CacheFull {
		t.Errorf("it ended with %s: %v", code, s.Err())
	}
	lost := regexp.MustCompile(`lost at (\S+): `).FindStringSubmatch(fmt.Sprint(s.Err()))
	if len(lost) != 2 || !strings.Contains(s.Err().Error(), string(r.vs[0].Volume.ID)) {
		t.Errorf("it does not name the volume (%s) and the time: %v", r.vs[0].Volume.ID, s.Err())
	} else if at, err := time.Parse(time.RFC3339, lost[1]); err != nil || at.Before(before.Truncate(time.Second)) || at.After(time.Now()) {
		t.Errorf("it says that it was lost at %v, and was taken at %v: %v", at, taken, err)
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

// Of a set of two, the one whose cache file is full is lost, and the other one is not.
func TestOneFull(t *testing.T) {
	vs := volumes(t, plain, "ext4", 2, 400)
	p, err := New(host).WithCache(snapshot.CacheChoice{Maximum: "50M"})
	r, other := &rig{t, vs[:1], p}, &rig{t, vs[1:], p}
	r.must(err)
	was := describe(t, nil)
	const size = 150 << 20
	r.fill(size)
	other.fill(size / 10)
	snaps := r.takeAll(vs)
	r.fill(size)
	w := other.write(size / 10)
	run(t, "sync", "--file-system", vs[0].Dir)
	r.await("the end of the first snapshot", func() bool { return snaps[0].Err() != nil })
	r.await("all of the other volume", func() bool { return w.bytes.Load() >= size/10 })
	w.end(t)
	if code := problem.CodeOf(snaps[0].Err()); code != problem.CacheFull {
		t.Errorf("it ended with %s: %v", code, snaps[0].Err())
	}
	if _, err := os.ReadDir(snaps[0].Root()); err == nil {
		t.Error("it can still be read")
	}
	b, err := os.ReadFile(filepath.Join(snaps[1].Root(), "written"))
	if err != nil || !bytes.Equal(b, bytes.Repeat([]byte{2}, size/10)) {
		t.Errorf("the other one reads otherwise (%d bytes): %v", len(b), err)
	}
	r.must(snaps[1].Err())
	for _, s := range snaps {
		r.must(s.Release(t.Context()))
	}
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// A volume that the cache file lies on and that others fill up ends the snapshot,
// too. How long the writer waits says nothing here: it shares its disk with who fills
// the other one.
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
