//go:build vm

package dm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/dm"
)

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
	// Before the instant nothing is taken. A machine with too much to do may need
	// several tries until it has frozen the volume in time.
	for try := range 10 {
		if err = r.changeBetween(fmt.Sprint("changed", try), number, table); problem.CodeOf(err) != problem.FreezeBlocked {
			break
		}
	}
	if problem.CodeOf(err) != problem.SnapshotFailed {
		t.Errorf("changed before the instant: %v", err)
	}
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// changeBetween changes the device between Prepare and the instant.
func (r *rig) changeBetween(id string, number dm.Number, table []dm.Target) error {
	c := control(r)
	pending, err := r.p.Prepare(r.Context(), id, []snapshot.Target{{Volume: r.vs[0].Volume, Paths: []string{"."}}})
	r.must(err)
	r.must(c.Load(number, table, false))
	r.must(c.Resume(number, 0))
	err = pending.Hold(r.Context())
	if err == nil {
		_, err = pending.Commit(r.Context())
	}
	r.must(pending.Resume(r.Context()))
	r.must(pending.Abort(r.Context()))
	return err
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

// What an Abort cannot take away is taken away later, by us or by the guard: that
// stays until then, and lets go of the volume.
func TestAbortHindered(t *testing.T) {
	r := newRig(t, plain, "ext4")
	c := control(t)
	number, err := nearest(r.vs[0].Volume)
	r.must(err)
	was := describe(t, nil)
	pending, err := r.p.Prepare(t.Context(), "hindered", []snapshot.Target{{Volume: r.vs[0].Volume, Paths: []string{"."}}})
	r.must(err)
	r.must(c.Suspend(number))
	err = pending.Abort(t.Context())
	s := pending.(*set)
	guarded := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.hold != nil
	}
	is := guarded()
	r.must(c.Resume(number, 0))
	if !problem.Is(err, problem.ReleaseFailed) || !problem.Is(err, problem.DeviceSuspended) {
		t.Errorf("abort: %v", err)
	}
	if !is {
		t.Error("its guard has ended")
	}
	r.await("the end of the guard", func() bool { return !guarded() })
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// While a snapshot is held its volume can be unmounted, and the snapshot stays good.
func TestUnmounted(t *testing.T) {
	r := newRig(t, plain, "ext4")
	r.fill(1 << 20)
	was := describe(t, nil)
	s := r.take()
	r.await("the end of the mount", func() bool {
		_, err := runQuietly("umount", r.vs[0].Dir)
		return err == nil
	})
	if b, err := os.ReadFile(filepath.Join(s.Root(), "small")); string(b) != "small" {
		t.Errorf("it reads %q, %v; %v", b, err, s.Err())
	}
	r.must(s.Err())
	run(t, "mount", r.vs[0].Volume.Source, r.vs[0].Dir)
	r.must(os.WriteFile(r.path("small"), []byte("other"), 0o600))
	run(t, "sync")
	if b, err := os.ReadFile(filepath.Join(s.Root(), "small")); string(b) != "small" {
		t.Errorf("afterwards it reads %q, %v; %v", b, err, s.Err())
	}
	r.must(s.Release(t.Context()))
	if is := describe(t, nil); is != was {
		t.Errorf("device-mapper is\n%s\nand was\n%s", is, was)
	}
}

// What is swapped to must not wait for a cache file.
func TestSwapFile(t *testing.T) {
	r := newRig(t, plain, "ext4")
	file := r.path("swap")
	r.must(os.WriteFile(file, make([]byte, 8<<20), 0o600))
	run(t, "mkswap", "-q", file)
	run(t, "swapon", file)
	undo(t, "swapoff", "--all")
	for _, err := range []error{r.p.Check(t.Context(), r.vs[0].Volume), func() error { _, err := r.try(); return err }()} {
		if problem.CodeOf(err) != problem.NoProvider || !strings.Contains(err.Error(), file) {
			t.Errorf("swapped to: %v", err)
		}
	}
	run(t, "swapoff", file)
	r.must(r.p.Check(t.Context(), r.vs[0].Volume))
}

// Nobody takes the snapshot for the volume: no link leads to one of our devices,
// whatever is triggered, and no scan finds one with what is kept of the volume.
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
		for name := range strings.Lines(run(t, "blkid", "-c", "/dev/null", "-o", "device", "-t", "UUID="+r.vs[0].Volume.UUID)) {
			if strings.HasPrefix(filepath.Base(name), namePrefix) && !strings.Contains(name, kindReal) {
				t.Errorf("%s: blkid finds %s", fs, name)
			}
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
