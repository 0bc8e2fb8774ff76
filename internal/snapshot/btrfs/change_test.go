package btrfs

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/btrfs"
)

// Nested subvolumes come, go and move between Prepare and Commit. What the
// snapshot shows is what was there at the instant, or it is named.
func TestChangesBeforeCommit(t *testing.T) {
	for _, test := range []struct {
		name        string
		change      func(d disk)
		parts, gaps string
	}{
		{"none", func(disk) {}, ". a a/b c", ""},
		{"created", func(d disk) { d.create("@/new", "@/a/new") }, ". a a/b c", "a/new:volume-late new:volume-late"},
		{"created in created", func(d disk) { d.create("@/new", "@/new/inner") }, ". a a/b c", "new:volume-late"},
		{"kept", func(d disk) { d.keepOld("@/a", "@/old") }, ". a a/b c", "old:rule"},
		{"deleted", func(d disk) { d.remove("@/c") }, ". a a/b", ""},
		{"deleted deep", func(d disk) { d.remove("@/a/b") }, ". a c", ""},
		{"came and went", func(d disk) { d.create("@/new"); d.remove("@/new") }, ". a a/b c", ""},
		{"moved", func(d disk) { must(d.t, os.Rename(d.in("@/c"), d.in("@/a/moved"))) }, ". a a/b a/moved", ""},
		{"moved up", func(d disk) { must(d.t, os.Rename(d.in("@/a/b"), d.in("@/b"))) }, ". a b c", ""},
		{"parent renamed", func(d disk) { must(d.t, os.Rename(d.in("@/a"), d.in("@/A"))) }, ". A A/b c", ""},
		{"moved out", func(d disk) { must(d.t, os.Rename(d.in("@/c"), d.in("c"))) }, ". a a/b", ""},
		{"moved in", func(d disk) { must(d.t, os.Rename(d.in("outer"), d.in("@/outer"))) }, ". a a/b c", "outer:volume-late"},
		{"another in its place", func(d disk) { d.remove("@/c"); d.create("@/c") }, ". a a/b", "c:volume-late"},
		{"directory in its place", func(d disk) { d.remove("@/c"); must(d.t, os.Mkdir(d.in("@/c"), 0o755)) }, ". a a/b", ""},
		{"swapped", func(d disk) {
			must(d.t, os.Rename(d.in("@/c"), d.in("@/tmp")))
			must(d.t, os.Rename(d.in("@/a"), d.in("@/c")))
			must(d.t, os.Rename(d.in("@/tmp"), d.in("@/a")))
		}, ". a c c/b", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDisk(t)
			d.create("@", "@/a", "@/a/b", "@/c", "outer")
			pending := prepare(t, of(d.mounted("@"), "."))
			test.change(d)
			s := commit(t, pending)[0]
			shows(t, s, test.parts, test.gaps)
			reads(t, s, nil)
			for _, p := range s.Parts() {
				in, err := os.ReadFile(s.Root() + "/" + p.Path + "/in")
				if err != nil || len(in) == 0 {
					t.Errorf("%s shows nothing: %v", p.Path, err)
				}
			}
			must(t, s.Release(t.Context()))
			nothingLeft(t, d)
		})
	}
}

// An empty directory that a snapshot of old left where a subvolume hung is an
// empty directory on the live volume, too, and no gap.
func TestOldStubs(t *testing.T) {
	d := newDisk(t)
	d.create("first", "first/sub")
	scratch.Run(t, "btrfs", "subvolume", "snapshot", d.in("first"), d.in("@"))
	d.remove("first/sub")
	d.remove("first")
	s := take(t, of(d.mounted("@"), "."))[0]
	shows(t, s, ".", "")
	if n := names(t, s.Root()); n != "in sub" {
		t.Errorf("shows %q", n)
	}
}

// What a Commit makes is not returned once Abort was called.
func TestAbortOvertakesCommit(t *testing.T) {
	d := newDisk(t)
	d.create("@", "@/a")
	pending := prepare(t, of(d.mounted("@"), "."))
	pending.(*set).aborted.Store(true) // as Abort does before it waits
	if snaps, err := pending.Commit(t.Context()); err == nil {
		t.Errorf("%d snapshots came", len(snaps))
	}
	if n := strings.Count(scratch.Run(t, "btrfs", "subvolume", "list", d.Dir), snapshotName); n != 2 {
		t.Errorf("%d snapshots were made, and the test means nothing", n)
	}
	must(t, pending.Abort(t.Context()))
	nothingLeft(t, d)
}

// When a subvolume that was selected is gone, the set cannot be taken.
func TestSelectedVanishes(t *testing.T) {
	d := newDisk(t)
	d.create("@", "@/a", "@/a/b")
	v := d.mounted("@")
	pending := prepare(t, of(v, "a/b/in", "."))
	d.remove("@/a/b")
	snaps, err := pending.Commit(t.Context())
	hasCode(t, "commit", err, problem.VolumeLost)
	if snaps != nil {
		t.Error("snapshots came with the error")
	}
	must(t, pending.Abort(t.Context()))
	nothingLeft(t, d)
}

// One that a selected path lies in is moved, or something on the way to it.
func TestSelectedMoves(t *testing.T) {
	for what, test := range map[string]struct {
		move func(d disk)
		want problem.Code
	}{
		"out":      {func(d disk) { must(d.t, os.Rename(d.in("@/a/b"), d.in("b"))) }, problem.VolumeLost},
		"within":   {func(d disk) { must(d.t, os.Rename(d.in("@/a/b"), d.in("@/b"))) }, problem.VolumeLost},
		"outer":    {func(d disk) { must(d.t, os.Rename(d.in("@/a"), d.in("@/A"))) }, problem.VolumeLost},
		"replaced": {func(d disk) { d.remove("@/a/b"); d.create("@/a/b") }, problem.VolumeLost},
		"and back": {func(d disk) {
			must(d.t, os.Rename(d.in("@/a"), d.in("a")))
			must(d.t, os.Rename(d.in("a"), d.in("@/a")))
		}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			d := newDisk(t)
			d.create("@", "@/a", "@/a/b")
			pending := prepare(t, of(d.mounted("@"), ".", "a/b"))
			test.move(d)
			snaps, err := pending.Commit(t.Context())
			if test.want == "" {
				must(t, err)
				shows(t, snaps[0], ". a a/b", "")
				must(t, snaps[0].Release(t.Context()))
				return
			}
			hasCode(t, "commit", err, test.want)
			must(t, pending.Abort(t.Context()))
			nothingLeft(t, d)
		})
	}
}

// A selected subvolume in one that cannot be taken is shown all the same.
func TestSelectedInSwap(t *testing.T) {
	d := newDisk(t)
	d.create("@", "@/swap", "@/swap/inner")
	pending := prepare(t, of(d.mounted("@"), ".", "swap/inner"))
	swapOn(t, d.in("@/swap/file"))
	s := commit(t, pending)[0]
	shows(t, s, ". swap/inner", "swap:swap-active")
	reads(t, s, map[string]string{"swap/inner": "@/swap/inner"})
	must(t, s.Release(t.Context()))
}

// Err notices what happens to a snapshot, and does not forget it.
func TestErr(t *testing.T) {
	for _, test := range []struct {
		name string
		harm func(d disk, snap string)
		good bool
	}{
		{"nothing", func(disk, string) {}, true},
		{"balance", func(d disk, _ string) { scratch.Run(d.t, "btrfs", "balance", "start", "--full-balance", d.Dir) }, true},
		{"snapshot of it", func(d disk, snap string) {
			scratch.Run(d.t, "btrfs", "subvolume", "snapshot", "-r", snap, d.in("copy"))
		}, true},
		{"deleted", func(d disk, snap string) { scratch.Run(d.t, "btrfs", "subvolume", "delete", snap) }, false},
		{"writable", func(d disk, snap string) {
			scratch.Run(d.t, "btrfs", "property", "set", snap, "ro", "false")
		}, false},
		{"changed", func(d disk, snap string) {
			scratch.Run(d.t, "btrfs", "property", "set", snap, "ro", "false")
			must(d.t, os.WriteFile(snap+"/in", []byte("changed"), 0o644))
			scratch.Run(d.t, "btrfs", "property", "set", snap, "ro", "true")
		}, false},
		{"file system read-only", func(d disk, _ string) {
			scratch.Run(d.t, "mount", "-o", "remount,ro", d.Dir)
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDisk(t)
			d.create("@", "@/a")
			s := take(t, of(d.mounted("@"), "."))[0]
			must(t, s.Err())
			id := scratch.Run(t, "sh", "-c", "ls -d "+d.Dir+"/.stillpoint/*/25[0-9]/snapshot | tail -n 1")
			test.harm(d, strings.TrimSpace(id))
			err := s.Err()
			if test.good && err != nil || !test.good && problem.CodeOf(err) != problem.SnapshotLost {
				t.Errorf("%v, code %q", err, problem.CodeOf(err))
			}
			if !test.good {
				scratch.Run(t, "mount", "-o", "remount,rw", d.Dir)
				if s.Err() == nil {
					t.Error("it is good again")
				}
			}
		})
	}
}

// The rule by which a snapshot is provably the one on record.
func TestFits(t *testing.T) {
	source, snap, other := btrfs.UUID{1}, btrfs.UUID{2}, btrfs.UUID{3}
	in := intent{ID: 256, UUID: source, Generation: 10, Place: 20}
	known := intent{ID: 256, UUID: source, Generation: 10, Place: 20, Snapshot: snap}
	unplaced := intent{ID: 256, UUID: source, Generation: 10}
	good := btrfs.Subvolume{ID: 300, UUID: snap, Parent: source, ReadOnly: true, Created: 11, Within: 5, Dir: 20}
	but := func(change func(*btrfs.Subvolume)) btrfs.Subvolume {
		s := good
		change(&s)
		return s
	}
	for what, test := range map[string]struct {
		in   intent
		s    btrfs.Subvolume
		want bool
	}{
		"UUID on record":              {known, good, true},
		"another one under its name":  {known, but(func(s *btrfs.Subvolume) { s.UUID = other }), false},
		"before it was on record":     {in, good, true},
		"of another subvolume":        {in, but(func(s *btrfs.Subvolume) { s.Parent = other }), false},
		"not a snapshot":              {in, but(func(s *btrfs.Subvolume) { s.Parent = btrfs.UUID{} }), false},
		"in another directory":        {in, but(func(s *btrfs.Subvolume) { s.Dir = 21 }), false},
		"in another subvolume":        {in, but(func(s *btrfs.Subvolume) { s.Within = 256 }), false},
		"before there was a place":    {unplaced, good, false},
		"writable":                    {in, but(func(s *btrfs.Subvolume) { s.ReadOnly = false }), false},
		"older than the record":       {in, but(func(s *btrfs.Subvolume) { s.Created = 10 }), false},
		"of a subvolume without UUID": {intent{ID: 256, Generation: 10}, but(func(s *btrfs.Subvolume) { s.Parent = btrfs.UUID{} }), false},
	} {
		if got := test.in.fits(test.s); got != test.want {
			t.Errorf("%s: %t", what, got)
		}
	}
}

// Which snapshots show one instant.
func TestSetInstants(t *testing.T) {
	for _, test := range []struct {
		ranges [][2]uint64 // last change, snapshot
		want   []uint64
	}{
		{[][2]uint64{{5, 9}}, []uint64{9}},
		{[][2]uint64{{9, 9}, {9, 9}}, []uint64{9, 9}},
		{[][2]uint64{{9, 9}, {10, 10}}, []uint64{9, 10}},
		{[][2]uint64{{9, 9}, {9, 10}}, []uint64{9, 9}},
		{[][2]uint64{{3, 11}, {9, 9}, {4, 10}}, []uint64{9, 9, 9}},
		{[][2]uint64{{10, 12}, {9, 9}, {11, 11}}, []uint64{11, 9, 11}},
		{[][2]uint64{{1, 9}, {10, 12}, {1, 13}}, []uint64{9, 12, 12}},
	} {
		var ms []*member
		for _, r := range test.ranges {
			m := &member{}
			m.snap.Changed, m.snap.Created, m.snap.Made = r[0], r[1], time.Unix(int64(r[1]), 0)
			ms = append(ms, m)
		}
		setInstants(ms)
		for i, m := range ms {
			if m.at.transaction != test.want[i] || !m.at.at.Equal(time.Unix(int64(test.want[i]), 0)) {
				t.Errorf("%v: %d is of instant %d, want %d", test.ranges, i, m.at.transaction, test.want[i])
			}
		}
	}
}

// Instants that the kernel stamped with the same time are told apart.
func TestTellApart(t *testing.T) {
	now := time.Unix(1, 0)
	s := &set{filesystems: map[btrfs.UUID]*filesystem{}, members: map[subvolume]*member{}}
	for i, transaction := range []uint64{7, 7, 8, 7} {
		uuid := btrfs.UUID{byte(i / 3)} // the last is on another file system
		if s.filesystems[uuid] == nil {
			s.filesystems[uuid] = &filesystem{uuid: uuid}
		}
		key := subvolume{uuid, uint64(i)}
		s.members[key] = &member{subvolume: key, fs: s.filesystems[uuid], at: instant{transaction, now}}
	}
	s.tellApart()
	times := map[time.Time]int{}
	for _, m := range s.members {
		times[m.at.at]++
	}
	if len(times) != 3 {
		t.Errorf("3 instants have the times %v", times)
	}
}

// Two processes may clean up at the same time.
func TestTwoCleaners(t *testing.T) {
	d := newDisk(t)
	d.create("@", "@/a")
	v := d.mounted("@")
	for i := range 10 {
		dieWith(t, commit(t, prepare(t, of(v, ".")))[0])
		errs := make(chan error)
		for range 2 {
			go func() {
				left, err := New(host).Leftovers(context.Background())
				for _, l := range left {
					if rerr := l.Release(context.Background()); rerr != nil && problem.CodeOf(rerr) != problem.Busy {
						err = fmt.Errorf("%w, %w", err, rerr)
					}
				}
				errs <- err
			}()
		}
		for range 2 {
			if err := <-errs; err != nil {
				t.Errorf("round %d: %v", i, err)
			}
		}
		left, err := New(host).Leftovers(t.Context())
		must(t, err)
		for _, l := range left {
			must(t, l.Release(t.Context()))
		}
		nothingLeft(t, d)
	}
}

// dieWith gives back what a set holds, as the end of its process does.
func dieWith(t *testing.T, s snapshot.Snapshot) {
	t.Helper()
	s.Parts() // so that it is mounted
	s.(*target).hide()
	s.(*target).set.close()
}
