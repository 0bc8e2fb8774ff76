//go:build zfs

package zfs

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/tool"
)

func runs(name string, args ...string) (string, error) {
	out, err := tool.Run(context.Background(), name, args...)
	return string(out), err
}

// died makes what a process leaves that dies when its snapshots are made. It returns
// the name of the first.
func died(t *testing.T, p testPool, id string, ts ...snapshot.Target) string {
	t.Helper()
	pending, err := provider().Prepare(t.Context(), id, ts)
	must(t, err)
	_, err = pending.Commit(t.Context())
	must(t, err)
	s := pending.(*set)
	s.record.close() // which is all that tells the living from the dead
	must(t, s.space.Close())
	must(t, s.device.Close())
	return strings.Fields(p.snapshots())[0]
}

// cleaned releases all leftovers and wants nothing to be left.
func cleaned(t *testing.T, p testPool, want int) {
	t.Helper()
	left, err := provider().Leftovers(t.Context())
	must(t, err)
	if len(left) != want {
		t.Errorf("%d leftovers, want %d", len(left), want)
	}
	for _, l := range left {
		must(t, l.Release(t.Context()))
	}
	if left, err := provider().Leftovers(t.Context()); len(left) > 0 || err != nil {
		t.Errorf("%v, %v", left, err)
	}
	if s := p.snapshots() + recordNames(t); s != "" {
		t.Errorf("left: %s", s)
	}
}

// A leftover is found where its dataset is now.
func TestLeftoverRenamed(t *testing.T) {
	p := newPool(t)
	p.create("a", "b")
	died(t, p, "renamed", of(p.volume("a"), "."), of(p.volume("b"), "."))
	p.zfs("rename", p.name+"/a", p.name+"/other")
	cleaned(t, p, 2)

	died(t, p, "swapped", of(p.volume("b"), "."), of(p.volume("../mnt"), "."))
	p.zfs("rename", p.name+"/b", p.name+"/c")
	p.create("b")
	cleaned(t, p, 3) // the pool's own dataset, b, and what was mounted there as other

	p.zfs("destroy", p.name+"/b")
	p.zfs("rename", p.name+"/c", p.name+"/b")
	died(t, p, "exchanged", of(p.volume("b"), "."), of(p.volume("other"), "."))
	p.zfs("rename", p.name+"/b", p.name+"/between")
	p.zfs("rename", p.name+"/other", p.name+"/b")
	p.zfs("rename", p.name+"/between", p.name+"/other")
	cleaned(t, p, 2)
}

// A copy of a snapshot that was received is not ours, though it has all that can be copied.
func TestLeftoverReceived(t *testing.T) {
	p := newPool(t)
	p.create("a")
	name := died(t, p, "sent", of(p.volume("a"), "."))
	scratch.Run(t, "sh", "-c", "zfs send -p '"+name+"' | zfs receive -u '"+p.name+"/copy'")
	copied := strings.Replace(name, "/a@", "/copy@", 1)
	if tag := p.zfs("get", "-H", "-o", "value", property, copied); !strings.HasPrefix(tag, "sent ") {
		t.Fatalf("the copy has the property %q", tag)
	}
	left, err := provider().Leftovers(t.Context())
	if len(left) != 1 {
		t.Errorf("%d leftovers", len(left))
	}
	hasCode(t, "leftovers", err, problem.LeftoverForeign)
	for _, l := range left {
		must(t, l.Release(t.Context()))
	}
	if s := p.snapshots(); s != copied {
		t.Errorf("there are %q", s)
	}
	_, err = provider().Leftovers(t.Context())
	hasCode(t, "leftovers after release", err, problem.LeftoverForeign)
	p.zfs("destroy", copied)
	cleaned(t, p, 0)
}

// One that is held, or has a clone, is released when that is over.
func TestLeftoverInUse(t *testing.T) {
	p := newPool(t)
	p.create("a")
	name := died(t, p, "cloned", of(p.volume("a"), "."))
	p.zfs("clone", name, p.name+"/clone")
	left, err := provider().Leftovers(t.Context())
	must(t, err)
	err = left[0].Release(t.Context())
	if !problem.Is(err, problem.ReleaseFailed) || !strings.Contains(err.Error(), "clone") {
		t.Errorf("%v", err)
	}
	p.zfs("destroy", p.name+"/clone")
	must(t, left[0].Release(t.Context()))
	cleaned(t, p, 0)
}

// A pool that is not there keeps its leftovers until it is.
func TestLeftoverExported(t *testing.T) {
	p := newPool(t)
	p.create("a")
	died(t, p, "exported", of(p.volume("a"), "."))
	p.retry("zpool", "export", p.name)
	left, err := provider().Leftovers(t.Context())
	must(t, err)
	if len(left) != 1 {
		t.Fatalf("%d leftovers", len(left))
	}
	err = left[0].Release(t.Context())
	if !problem.Is(err, problem.ReleaseFailed) || !strings.Contains(err.Error(), "imported") {
		t.Errorf("%v", err)
	}
	scratch.Run(t, "zpool", "import", "-d", filepath.Dir(p.file), p.name)
	cleaned(t, p, 1)
}

// Without a record nothing is ours, whatever it says.
func TestLeftoverWithoutRecord(t *testing.T) {
	p := newPool(t)
	p.create("a")
	name := died(t, p, "unrecorded", of(p.volume("a"), "."))
	must(t, os.Remove(filepath.Join(recordDir, "unrecorded.set")))
	for range 2 {
		left, err := provider().Leftovers(t.Context())
		if len(left) > 0 {
			t.Errorf("%d leftovers", len(left))
		}
		hasCode(t, "leftovers", err, problem.LeftoverForeign)
	}
	p.zfs("destroy", name)
	cleaned(t, p, 0)
}
