//go:build vm

package dm

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/dm"
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

// A device that another program changes meanwhile keeps what that gave it, and the
// snapshot is lost.
func TestChanged(t *testing.T) {
	r := newRig(t, plain, "ext4")
	c := control(t)
	number, err := nearest(r.vs[0].Volume)
	r.must(err)
	table, err := c.Table(number)
	r.must(err)
	was := describe(t, nil)
	s := r.take()
	r.must(s.Err())
	r.must(c.Load(number, table, false))
	r.must(c.Resume(number, 0))
	if err := s.Err(); problem.CodeOf(err) != problem.SnapshotLost || !strings.Contains(err.Error(), "changed") {
		t.Errorf("changed: %v", err)
	}
	r.must(s.Release(t.Context()))
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
	// Before the instant nothing is taken.
	pending, err := r.p.Prepare(t.Context(), "changedbefore", []snapshot.Target{{Volume: r.vs[0].Volume, Paths: []string{"."}}})
	r.must(err)
	r.must(c.Load(number, table, false))
	r.must(c.Resume(number, 0))
	err = pending.Hold(t.Context())
	if err == nil {
		_, err = pending.Commit(t.Context())
	}
	r.must(pending.Resume(t.Context()))
	r.must(pending.Abort(t.Context()))
	if problem.CodeOf(err) != problem.SnapshotFailed {
		t.Errorf("changed before the instant: %v", err)
	}
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// The snapshot that somebody removes is lost, and the origin goes on.
func TestRemoved(t *testing.T) {
	r := newRig(t, plain, "ext4")
	was := describe(t, nil)
	c := control(t)
	s := r.take().(*target)
	d, err := c.StatusOf(s.tag.as(kindSnapshot).uuid())
	r.must(err)
	r.must(c.Remove(d.Number, dm.Alone))
	if err := s.Err(); problem.CodeOf(err) != problem.SnapshotLost {
		t.Errorf("removed: %v", err)
	}
	r.must(os.WriteFile(r.path("file"), []byte("x"), 0o600))
	r.must(s.Release(t.Context()))
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// A suspended device is named, and nothing waits for it.
func TestSuspended(t *testing.T) {
	r := newRig(t, plain, "ext4")
	c := control(t)
	number, err := nearest(r.vs[0].Volume)
	r.must(err)
	was := describe(t, nil)
	r.must(c.Suspend(number))
	defer func() { r.must(c.Resume(number, 0)) }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := r.p.Check(ctx, r.vs[0].Volume); problem.CodeOf(err) != problem.DeviceSuspended {
		t.Errorf("check: %v", err)
	}
	if _, err := r.try(); problem.CodeOf(err) != problem.DeviceSuspended {
		t.Errorf("prepare: %v", err)
	}
	if left, err := r.p.Leftovers(ctx); len(left) > 0 || err != nil {
		t.Errorf("leftovers: %v, %v", left, err)
	}
	if _, err := host(ctx); err != nil {
		t.Errorf("look at the host: %v", err)
	}
	if is := strings.Replace(describe(t, nil), "suspended true", "suspended false", 1); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// Nobody takes the snapshot for the volume: no link leads to one of our devices,
// whatever is triggered.
func TestUdev(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		r := newRig(t, linear, fs)
		links := func() string {
			run(t, "udevadm", "trigger", "--settle", "--subsystem-match=block")
			return run(t, "find", "/dev/disk/by-uuid", "/dev/disk/by-id", "/dev/disk/by-label", "-type", "l", "-printf", "%p %l\n")
		}
		r.fill(1 << 20)
		was := links()
		if !strings.Contains(was, "by-uuid/"+r.vs[0].Volume.UUID) {
			t.Fatalf("udev has no link for the volume: this test proves nothing\n%s", was)
		}
		s := r.take()
		r.fill(1 << 20) // the beginning of the volume is in the store
		run(t, "sync")
		if is := links(); is != was {
			t.Errorf("%s: links are\n%s\nand were\n%s", fs, is, was)
		}
		r.must(s.Release(t.Context()))
		if is := links(); is != was {
			t.Errorf("%s: afterwards links are\n%s\nand were\n%s", fs, is, was)
		}
	}
}

// LUKS2 with its key in the keyring, as cryptsetup opens it by default.
func TestKeyring(t *testing.T) {
	r := newRig(t, func(tb testing.TB, dir string, n int, size int64) []string {
		key := filepath.Join(dir, "key")
		if err := os.WriteFile(key, []byte("secret"), 0o600); err != nil {
			tb.Fatal(err)
		}
		return []string{opened(tb, plain(tb, dir, 1, size+16)[0], key)}
	}, "ext4")
	was := describe(t, nil)
	for _, err := range []error{r.p.Check(t.Context(), r.vs[0].Volume), func() error { _, err := r.try(); return err }()} {
		if problem.CodeOf(err) != problem.NoProvider || !strings.Contains(err.Error(), "keyring") {
			t.Errorf("got %v", err)
		}
	}
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// lvextend goes on as ever, and the snapshot says so.
func TestExtended(t *testing.T) {
	var node string
	r := newRig(t, func(tb testing.TB, dir string, n int, size int64) []string {
		vg := group(tb, dir, 1, 2*size)
		node = lv(tb, vg, "--size", "400m")
		return []string{node}
	}, "ext4")
	s := r.take()
	r.must(s.Err())
	run(t, "lvextend", "-q", "--size", "+100m", node)
	if err := s.Err(); problem.CodeOf(err) != problem.SnapshotLost || !strings.Contains(err.Error(), "changed") {
		t.Errorf("extended: %v", err)
	}
	run(t, "resize2fs", node)
	r.must(s.Release(t.Context()))
	if size := run(t, "blockdev", "--getsize64", node); size != "524288000" {
		t.Errorf("the volume is %s bytes large", size)
	}
	r.fill(1 << 20)
	run(t, "lvs", "--noheadings", node)
	r.must(r.take().Err())
}
