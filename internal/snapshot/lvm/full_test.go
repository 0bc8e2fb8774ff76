//go:build vm

package lvm

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/tool"
)

// A raw is a file that is written past the page cache, as fast as the pool takes it.
type raw struct {
	f     *os.File
	page  []byte        // 1 MiB, aligned
	pause time.Duration // after each of them
}

func newRaw(t *testing.T, name string, flags int) *raw {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_DIRECT|flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	page, err := syscall.Mmap(-1, 0, mib, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(page) })
	return &raw{f: f, page: page}
}

// fill writes so many MiB, each byte as told.
func (r *raw) fill(t *testing.T, b byte, size int64) {
	t.Helper()
	for i := range r.page {
		r.page[i] = b
	}
	for i := range size {
		if _, err := r.f.WriteAt(r.page, i*mib); err != nil {
			t.Fatalf("after %d MiB: %v", i, err)
		}
		time.Sleep(r.pause)
	}
}

// touch writes 4 KiB at each of the places.
func (r *raw) touch(t *testing.T, at ...int64) {
	t.Helper()
	for _, off := range at {
		if _, err := r.f.WriteAt(r.page[:4096], off); err != nil {
			t.Fatalf("at %d: %v", off, err)
		}
	}
}

// unharmed fails the test when the kernel says by its end that a thin pool had no room, or
// was made read-only, meanwhile.
func unharmed(t *testing.T) {
	t.Helper()
	log, err := syscall.Open("/dev/kmsg", syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err == nil {
		_, err = syscall.Seek(log, 0, 2)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer syscall.Close(log)
		line := make([]byte, 8<<10)
		for {
			n, err := syscall.Read(log, line)
			if errors.Is(err, syscall.EPIPE) { // some were lost
				continue
			}
			if err != nil || n == 0 {
				return
			}
			if s := string(line[:n]); strings.Contains(s, "switching pool to") && !strings.Contains(s, "to write mode") || strings.Contains(s, "I/O error") {
				t.Error(s)
			}
		}
	})
}

// watchPool asks the kernel about the thin pool of a group.
func watchPool(t *testing.T, g group) (now func() pool) {
	t.Helper()
	c := control(t)
	all, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(d dm.Device) bool { return d.Name == g.name+"-pool-tpool" })
	if i < 0 {
		t.Fatal("there is no pool")
	}
	return func() pool {
		p, err := poolState(c, all[i].Number)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

// given waits until a snapshot is given up, and looks why.
func given(t *testing.T, s snapshot.Snapshot) {
	t.Helper()
	until(t, "the end of the snapshot", func() bool { return s.Err() != nil })
	if err := s.Err(); problem.CodeOf(err) != problem.PoolFull {
		t.Errorf("got %v, want pool-full", err)
	}
	if _, err := os.ReadDir(s.Root()); err == nil {
		t.Error("what was given up is shown")
	}
}

// However fast somebody writes, the pool is never full, and only the snapshots in it are
// lost: those of a set in another pool stay.
func TestPoolFillsFast(t *testing.T) {
	g, other := newGroup(t, 900), newGroup(t, 100)
	unharmed(t)
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--thin", "-V", "900m", "-n", "a", g.name+"/pool")
	v, w := g.mount(t, "a", "ext4"), other.thin(t, "b", "ext4")
	if err := os.WriteFile(w.Dir+"/file", []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := newRaw(t, v.Dir+"/file", 0)
	file.fill(t, 1, 600)
	snaps := take(t, New(hostTable), "fast", v, w)
	for _, s := range snaps {
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
	}
	file.fill(t, 2, 600) // what is shared now is written anew
	given(t, snaps[0])
	if err := os.WriteFile(w.Dir+"/file", []byte("after"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(snaps[1].Root() + "/file"); string(b) != "before" || err != nil {
		t.Errorf("in the other pool: %q, %v", b, err)
	}
	if err := snaps[1].Err(); err != nil {
		t.Errorf("in the other pool: %v", err)
	}
	for _, s := range snaps {
		if err := s.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A snapshot is given up before the metadata of its pool are used up, by whomever.
func TestMetadataFills(t *testing.T) {
	g := newBare(t, 1000)
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--type", "thin-pool", "-L", "800m", "--poolmetadatasize", "2m", "-c", "64k", "-n", "pool", g.name)
	unharmed(t)
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--thin", "-V", "700m", "-n", "a", g.name+"/pool")
	v := g.mount(t, "a", "ext4")
	file := newRaw(t, v.Dir+"/file", 0)
	file.fill(t, 1, 560)
	// Each leaf of the pool's tree of the volume leads to no more than 252 blocks, of 64 KiB,
	// and a write to one that is shared makes a copy of the leaf.
	var leaves []int64
	for off := int64(0); off < 560*mib; off += 8 * mib {
		leaves = append(leaves, off)
	}
	message := func(format string, args ...any) {
		t.Helper()
		scratch.Run(t, "dmsetup", "message", g.name+"-pool-tpool", "0", fmt.Sprintf(format, args...))
	}
	thin := strings.TrimSpace(scratch.Run(t, "lvs", "--noheadings", "-o", "thin_id", g.name+"/a"))
	now := watchPool(t, g)
	left := func() uint64 { p := now(); return p.meta - p.metaUsed }
	s := take(t, New(hostTable), "metadata", v)[0]
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	var took []uint64
	for i := 1000; s.Err() == nil; i++ { // snapshots of somebody else, which stay
		was := left()
		message("create_snap %d %s", i, thin)
		t.Cleanup(func() { message("delete %d", i) })
		file.touch(t, leaves...)
		took = append(took, was-min(was, left()))
	}
	t.Logf("snapshots took %d blocks of metadata, %d are left", took, left())
	given(t, s)
	if err := s.Err(); !strings.Contains(err.Error(), "metadata") {
		t.Error(err)
	}
	if p := now(); p.trouble != "" || len(took) < 2 {
		t.Errorf("%q after %d", p.trouble, len(took))
	}
	file.touch(t, leaves...)
	if err := os.WriteFile(v.Dir+"/after", make([]byte, mib), 0o600); err != nil {
		t.Error(err)
	}
	scratch.Run(t, "sync", v.Dir)
}

// A snapshot that nobody has asked for yet is given up, and its room given back, while
// another program has the volume group for as long as it likes; and so is one that LVM is
// being asked for.
func TestGivenUpWithoutLVM(t *testing.T) {
	for _, one := range []struct {
		name    string
		changed bool // LVM has changed the pool since the snapshot was taken
		asked   bool
	}{{name: "unseen"}, {name: "changed", changed: true}, {name: "asked", asked: true}, {name: "both", changed: true, asked: true}} {
		t.Run(one.name, func(t *testing.T) {
			g := newGroup(t, 600)
			unharmed(t)
			v := g.thin(t, "a", "ext4")
			file := newRaw(t, v.Dir+"/file", 0)
			file.fill(t, 1, 320)
			s := take(t, New(hostTable), one.name, v)[0]
			if one.changed {
				scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--thin", "-V", "16m", "-n", "b", g.name+"/pool")
				file.pause = 20 * time.Millisecond // who has to ask LVM has to run a program
			}
			lock := holdGroup(t, g)
			asked := make(chan error, 1)
			if one.asked {
				go func() { asked <- s.Err() }()
			}
			file.fill(t, 2, 320)
			if p := watchPool(t, g)(); p.trouble != "" || (p.all-p.used)*p.block < 200*mib {
				t.Errorf("%d MiB are left of the pool: %q", (p.all-p.used)*p.block/mib, p.trouble)
			}
			lock.Close()
			if one.asked {
				<-asked
			}
			given(t, s)
			if err := s.Release(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := tool.Run(t.Context(), "lvs", g.name+"/"+namePrefix+one.name+"-0"); err == nil {
				t.Error("it is still there")
			}
		})
	}
}

// So is one whose release waits for another program.
func TestGivenUpWhileReleased(t *testing.T) {
	g := newGroup(t, 600)
	unharmed(t)
	v, w := g.thin(t, "a", "ext4"), g.thin(t, "b", "ext4")
	file := newRaw(t, v.Dir+"/file", 0)
	file.fill(t, 1, 300)
	file.pause = 20 * time.Millisecond
	c := newConsole()
	c.patience = 2 * time.Second
	p := &Provider{console: c}
	s, other := take(t, p, "released", v)[0], take(t, p, "other", w)[0]
	if err := errors.Join(s.Err(), other.Release(t.Context())); err != nil { // by which LVM has changed the pool
		t.Fatal(err)
	}
	lock := holdGroup(t, g)
	if err := s.Release(t.Context()); !problem.Is(err, problem.Busy) {
		t.Fatalf("release: %v, want busy", err)
	}
	file.fill(t, 2, 300)
	if p := watchPool(t, g)(); p.trouble != "" || (p.all-p.used)*p.block < 200*mib {
		t.Errorf("%d MiB are left of the pool: %q", (p.all-p.used)*p.block/mib, p.trouble)
	}
	lock.Close()
	if err := s.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := tool.Run(t.Context(), "lvs", g.name+"/"+namePrefix+"released-0"); err == nil {
		t.Error("it is still there")
	}
}

// holdGroup has the volume group, as a command of LVM that takes long.
func holdGroup(t *testing.T, g group) *os.File {
	t.Helper()
	lock, err := os.OpenFile("/run/lock/lvm/V_"+g.name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return lock
}

// Where only LVM can give the room back, and another program has the volume group, it is
// asked again until it has.
func TestGivenUpLater(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	c := newConsole()
	c.patience, c.again = 2*time.Second, 100*time.Millisecond
	s := take(t, &Provider{console: c}, "later", v)[0].(*target)
	scratch.Run(t, "lvchange", "--activate", "y", "--ignoreactivationskip", s.place.lv.full()) // somebody looks at it
	lock := holdGroup(t, g)
	s.mu.Lock()
	s.giveUp(problem.Newf(problem.PoolFull, "pool", "planted"))
	s.mu.Unlock()
	tried := func() time.Time {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.emptied {
			t.Fatal("it is empty: this test proves nothing")
		}
		return s.asked
	}
	until(t, "a try", func() bool { return !tried().IsZero() })
	first := tried()
	until(t, "another try", func() bool { return tried().After(first) })
	lock.Close()
	until(t, "the removal", func() bool {
		_, err := tool.Run(t.Context(), "lvs", g.name+"/"+namePrefix+"later-0")
		return err != nil
	})
	given(t, s)
}

// Somebody has removed the logical volume, and its number in the pool is another one's by
// now: that is left alone when the snapshot is given up, which nobody has asked for yet.
func TestGivenUpOfAnother(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	s := take(t, New(hostTable), "another", v)[0].(*target)
	scratch.Run(t, "lvremove", "--yes", "-q", s.place.lv.full())
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--thin", "-V", "16m", "-n", "d", g.name+"/pool")
	if n := strings.TrimSpace(scratch.Run(t, "lvs", "--noheadings", "-o", "thin_id", g.name+"/d")); n != fmt.Sprint(s.place.thin) {
		t.Fatalf("the number %s is not %d: this test proves nothing", n, s.place.thin)
	}
	if err := os.WriteFile("/dev/"+g.name+"/d", []byte("of somebody else"), 0); err != nil {
		t.Fatal(err)
	}
	scratch.Run(t, "lvchange", "-an", g.name+"/d")
	s.mu.Lock()
	s.giveUp(problem.Newf(problem.PoolFull, "pool", "planted"))
	s.mu.Unlock()
	until(t, "the word of LVM", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.emptied && s.devices == nil
	})
	given(t, s)
	scratch.Run(t, "lvchange", "-ay", g.name+"/d")
	if b, err := os.ReadFile("/dev/" + g.name + "/d"); err != nil || !strings.HasPrefix(string(b), "of somebody else") {
		t.Errorf("the volume of somebody else is gone: %v", err)
	}
}
