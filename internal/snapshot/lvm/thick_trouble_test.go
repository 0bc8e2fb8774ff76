//go:build vm

package lvm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/tool"
)

// named50 is the provider as people have named it, for volumes whose originals take no
// more than 50 MiB.
func named50() *Provider { return New(hostTable).WithMaximum(cachefile.Bytes(50 << 20)) }

// same tells what has changed of a group since it was so.
func same(t *testing.T, g group, was string) {
	t.Helper()
	if is := describeThick(t, g); is != was {
		t.Errorf("the group is\n%s\nand was\n%s", is, was)
	}
}

// Originals that have no more room cost the snapshot, at once their extents, and no
// writer anything.
func TestThickFull(t *testing.T) {
	g := newBare(t, 700)
	v := g.thick(t, "a", "ext4", 400)
	data := bytes.Repeat([]byte{2}, 4<<20)
	write := func() (longest time.Duration) {
		for i := range 30 {
			began := time.Now()
			f, err := os.OpenFile(filepath.Join(v.Dir, "file"), os.O_CREATE|os.O_WRONLY, 0o600)
			if err == nil {
				_, err = f.WriteAt(data, int64(i*len(data)))
			}
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				t.Fatalf("a live write failed: %v", err)
			}
			longest = max(longest, time.Since(began))
		}
		return longest
	}
	write()
	was := describeThick(t, g)
	s := take(t, named50(), "full", v)[0]
	if c := snapshot.CacheOf(s); c == nil || c.Maximum < 50<<20 || c.Maximum > 60<<20 || !strings.HasPrefix(c.Dir, g.name+"/"+namePrefix) {
		t.Errorf("where originals go: %+v", c)
	}
	if _, err := os.ReadDir(s.Root()); err != nil {
		t.Fatal(err, s.Err())
	}
	for i := range data {
		data[i] = 3
	}
	t.Logf("the longest write of 4 MiB with its sync took %v", write())
	if err := s.Err(); problem.CodeOf(err) != problem.CacheFull || !strings.Contains(err.Error(), g.name) || !strings.Contains(err.Error(), string(v.Volume.ID)) {
		t.Errorf("got %v, want cache-full", err)
	}
	if c := snapshot.CacheOf(s); c == nil || c.Used != c.Maximum {
		t.Errorf("the high-water mark: %+v", c)
	}
	if _, err := os.ReadDir(s.Root()); err == nil {
		t.Error("what was lost is shown")
	}
	until(t, "the extents, before anybody has released it", func() bool {
		return !strings.Contains(scratch.Run(t, "lvs", "--noheadings", "-o", "lv_name", g.name), namePrefix)
	})
	write()
	if err := s.Release(t.Context()); err != nil {
		t.Error(err)
	}
	same(t, g, was)
}

// A group that has no extents free, or too few, is known before anything is made.
func TestThickNoRoom(t *testing.T) {
	g := newBare(t, 700)
	v := g.thick(t, "a", "ext4", 400)
	p := New(hostTable)
	if how, err := p.Named(t.Context(), v.Volume); err != nil || !strings.Contains(how, g.name) {
		t.Errorf("with room: %q, %v", how, err)
	}
	if err := p.Check(t.Context(), v.Volume); problem.CodeOf(err) != problem.NoProvider || !strings.Contains(err.Error(), "named") {
		t.Errorf("by itself: %v", err)
	}
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "-l", "100%FREE", "-n", "rest", g.name)
	was := describeThick(t, g)
	if _, err := p.Named(t.Context(), v.Volume); problem.CodeOf(err) != problem.PoolFull || !strings.Contains(err.Error(), g.name) {
		t.Errorf("got %v, want pool-full", err)
	}
	if _, err := p.Prepare(t.Context(), "noroom", []snapshot.Target{{Volume: v.Volume, Paths: []string{"."}}}); problem.CodeOf(err) != problem.PoolFull {
		t.Errorf("got %v, want pool-full", err)
	}
	same(t, g, was)
	// Somebody takes the extents after we have looked: LVM says so.
	r := newRoom(host, nil, "late", 0, thick{lv: logical{Group: g.name, GroupUUID: "x"}, space: space{group: g.name}, extents: 20}, owner{})
	if _, _, err := r.Make(t.Context()); problem.CodeOf(err) != problem.PoolFull {
		t.Errorf("got %v, want pool-full", err)
	}
	if err := r.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	same(t, g, was)
}

// What others do to the group and its volumes while there is a snapshot: an lvremove of
// ours is refused, and the snapshot of a volume that gets another table is lost, which
// costs the volume nothing, and is removed under whatever name the group has.
func TestThickMeanwhile(t *testing.T) {
	g := newBare(t, 900)
	v := g.thick(t, "a", "xfs", 400)
	if err := os.WriteFile(v.Dir+"/file", []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	was := describeThick(t, g)
	s := take(t, New(hostTable), "meanwhile", v)[0]
	room := namePrefix + "meanwhile" + roomInfix + "0"
	good := func(after string) {
		t.Helper()
		if b, err := os.ReadFile(s.Root() + "/file"); err != nil || string(b) != "before" || s.Err() != nil {
			t.Errorf("after %s: %q, %v, %v", after, b, err, s.Err())
		}
	}
	good("nothing")
	if err := os.WriteFile(v.Dir+"/file", []byte("after"), 0o600); err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{{"lvremove", "--yes", "--force"}, {"lvchange", "--yes", "-an"}} {
		if _, err := tool.Run(t.Context(), args[0], append(args[1:], g.name+"/"+room)...); err == nil {
			t.Errorf("%s was not refused", args)
		}
		good(args[0])
	}
	// LVM gives all volumes their tables again, with a new name of their group, and with a
	// new size of one.
	for _, change := range []struct{ there, back []string }{
		{[]string{"vgrename", g.name, g.name + "new"}, []string{"vgrename", g.name + "new", g.name}},
		{[]string{"lvextend", "--yes", "-q", "-L", "+16m", g.name + "/a"}, nil},
	} {
		scratch.Run(t, change.there[0], change.there[1:]...)
		if err := s.Err(); problem.CodeOf(err) != problem.SnapshotLost || !strings.Contains(err.Error(), "changed") {
			t.Errorf("after %s: %v, want snapshot-lost", change.there[0], err)
		}
		if err := os.WriteFile(v.Dir+"/file", []byte("before"), 0o600); err != nil {
			t.Error(err)
		}
		if err := s.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if change.back == nil {
			break
		}
		scratch.Run(t, change.back[0], change.back[1:]...)
		same(t, g, was)
		s = take(t, New(hostTable), "meanwhile", v)[0]
		good("it is taken again")
	}
	if lvs := scratch.Run(t, "lvs", "-a", "--noheadings", "-o", "lv_name,lv_size", "--units", "m", "--nosuffix", g.name); strings.TrimSpace(lvs) != "a    416.00" {
		t.Errorf("the group has %q", lvs)
	}
}
