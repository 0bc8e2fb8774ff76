//go:build vm

package lvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	stack "stillpoint/internal/snapshot/dm"
	"stillpoint/internal/snapshot/snapshottest"
)

// A thin pool in the group of a classic volume has free extents left that it can grow by,
// and the rest when it has grown; a pool that is nearly full has all of them.
func TestThickPools(t *testing.T) {
	g := newBare(t, 1500)
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--type", "thin-pool", "-L", "400m", "-n", "pool", g.name)
	v, thin := g.thick(t, "a", "ext4", 300), g.thin(t, "thin", "ext4")
	p := named50()
	how, err := p.Named(t.Context(), v.Volume)
	if err != nil || !strings.Contains(how, "80 MiB stay for what "+g.name+"/pool") {
		t.Fatalf("%q, %v", how, err)
	}
	s := take(t, p, "pools", v)[0]
	grow := func(size string) {
		t.Helper()
		scratch.Run(t, "lvextend", "--yes", "-q", "-q", "-L", size, g.name+"/pool")
	}
	grow("+40m")
	time.Sleep(time.Second) // for looks to be taken, which find that it is well
	if err := s.Err(); err != nil {
		t.Fatalf("after half of what is kept: %v", err)
	}
	if _, err := os.ReadDir(s.Root()); err != nil {
		t.Fatal(err)
	}
	grow("+20m")
	until(t, "the end of the snapshot", func() bool { return s.Err() != nil })
	if err := s.Err(); problem.CodeOf(err) != problem.PoolFull || !strings.Contains(err.Error(), g.name) {
		t.Errorf("got %v, want pool-full", err)
	}
	until(t, "the extents, before anybody has released it", func() bool {
		return !strings.Contains(scratch.Run(t, "lvs", "--noheadings", "-o", "lv_name", g.name), namePrefix)
	})
	for _, w := range []snapshottest.Volume{v, thin} {
		if err := os.WriteFile(w.Dir+"/file", []byte("after"), 0o600); err != nil {
			t.Error(err)
		}
	}
	if err := s.Release(t.Context()); err != nil {
		t.Error(err)
	}

	// A pool has nearly nothing left, and nothing is taken from its group.
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--type", "thin-pool", "-L", "100m", "-n", "small", g.name)
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--thin", "-V", "200m", "-n", "most", g.name+"/small")
	f, err := os.OpenFile("/dev/"+g.name+"/most", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 95<<20)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	was := describeThick(t, g)
	if _, err := p.Named(t.Context(), v.Volume); problem.CodeOf(err) != problem.PoolFull || !strings.Contains(err.Error(), g.name+"/small") {
		t.Errorf("got %v, want pool-full", err)
	}
	same(t, g, was)
}

// LVM's notes name a room also where LVM is told to note nothing, and who knows that there
// may be one asks LVM whatever the notes say, and waits for who has the group.
func TestThickNotes(t *testing.T) {
	g := newBare(t, 700)
	g.thick(t, "a", "ext4", 400)
	note := filepath.Join(backups, g.name)
	old, err := os.ReadFile(note)
	if err != nil || isNoted(backups, g.name) {
		t.Fatal("the group is noted before:", err)
	}
	const local = "/etc/lvm/lvmlocal.conf"
	had, rerr := os.ReadFile(local)
	t.Cleanup(func() {
		if rerr != nil {
			_ = os.Remove(local)
		} else if err := os.WriteFile(local, had, 0o644); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(local, []byte("backup { backup = 0 }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	was := describeThick(t, g)
	by, err := self()
	if err != nil {
		t.Fatal(err)
	}
	by.boot = "another"
	lvs, err := host.list(t.Context(), g.name)
	if err != nil || len(lvs) != 1 {
		t.Fatal(lvs, err)
	}
	c, err := open(snapshottest.Volume{}.Volume)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := newRoom(host, c, "notes", 0, thick{lv: lvs[0], space: space{group: g.name}, extents: 20}, by)
	if _, _, err := r.Make(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !isNoted(backups, g.name) {
		t.Error("the room is not noted")
	}
	scratch.Run(t, "lvchange", "-an", r.Name())
	if err := os.WriteFile(note, old, 0o600); err != nil {
		t.Fatal(err)
	}

	lock, err := os.OpenFile("/run/lock/lvm/V_"+g.name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	type answer struct {
		left []snapshot.Snapshot
		err  error
	}
	found := make(chan answer, 1)
	go func() {
		left, err := thorough().Leftovers(context.WithoutCancel(t.Context()))
		found <- answer{left, err}
	}()
	select {
	case a := <-found:
		t.Errorf("it has not waited for the group: %v, %v", a.left, a.err)
		found <- a
	case <-time.After(3 * time.Second):
	}
	lock.Close()
	a := <-found
	if a.err != nil || len(a.left) != 1 {
		t.Fatalf("leftovers: %v, %v", a.left, a.err)
	}
	if err := a.left[0].Release(t.Context()); err != nil {
		t.Error(err)
	}
	same(t, g, was)

	// Notes that cannot be written are not believed.
	dir := t.TempDir()
	scratch.Run(t, "mount", "-t", "tmpfs", "none", dir)
	t.Cleanup(func() { scratch.Run(t, "umount", dir) })
	if err := os.WriteFile(filepath.Join(dir, "vg"), []byte("vg {\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if isNoted(dir, "vg") {
		t.Error("it is noted")
	}
	scratch.Run(t, "mount", "-o", "remount,ro", dir)
	if !isNoted(dir, "vg") {
		t.Error("a note is believed that is not written any more")
	}
}

// fails is a kind that has much to write ahead, and cannot be taken.
type fails struct {
	stack.Roomed
	ahead func()
}

func (f fails) WriteAhead(ctx context.Context) error {
	f.ahead()
	return f.Roomed.WriteAhead(ctx)
}

func (fails) CommitAt(context.Context, time.Time) ([]snapshot.Snapshot, error) {
	return nil, errors.New("planted")
}

// Nothing is frozen while any volume is written ahead, and where the thin volumes of a set
// were taken and the classic ones cannot be, all go on at once, and nothing is left.
func TestMixedHalf(t *testing.T) {
	g := newBare(t, 1500)
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--type", "thin-pool", "-L", "400m", "-n", "pool", g.name)
	vs := []snapshottest.Volume{g.thick(t, "a", "ext4", 300), g.thin(t, "b", "xfs")}
	var ts []snapshot.Target
	for _, v := range vs {
		ts = append(ts, snapshot.Target{Volume: v.Volume, Paths: []string{"."}})
	}
	was := describeThick(t, g)
	for _, commit := range []bool{true, false} { // or it is given up while it is held
		p, err := named50().Prepare(t.Context(), fmt.Sprint("half", commit), ts)
		if err != nil {
			t.Fatal(err)
		}
		b := p.(*both)
		b.thick = fails{b.thick, func() {
			time.Sleep(300 * time.Millisecond)
			b.thin.mu.Lock()
			defer b.thin.mu.Unlock()
			if b.thin.held {
				t.Error("the thin volume is frozen while the classic one is written ahead")
			}
		}}
		if err := b.Hold(t.Context()); err != nil {
			t.Fatal(err)
		}
		if commit {
			if _, err := b.Commit(t.Context()); err == nil || !strings.Contains(err.Error(), "planted") {
				t.Errorf("commit: %v", err)
			}
		}
		if err := b.Abort(t.Context()); err != nil {
			t.Error(err)
		}
		for _, v := range vs {
			if err := os.WriteFile(v.Dir+"/file", bytes.Repeat([]byte{1}, 1<<16), 0o600); err != nil {
				t.Error(err)
			}
		}
		same(t, g, was)
	}
}
