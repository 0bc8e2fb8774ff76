//go:build vm

package lvm

import (
	"context"
	"os"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/tool"
)

// takeAfter prepares a set, does something, and goes on with the set.
func takeAfter(t *testing.T, v snapshottest.Volume, id string, meanwhile func()) (snapshot.Pending, []snapshot.Snapshot, error) {
	t.Helper()
	set, err := New(hostTable).Prepare(t.Context(), id, []snapshot.Target{{Volume: v.Volume, Paths: []string{"."}}})
	if err != nil {
		t.Fatal(err)
	}
	meanwhile()
	var snaps []snapshot.Snapshot
	if err = set.Hold(t.Context()); err == nil {
		snaps, err = set.Commit(t.Context())
	}
	if err := set.Resume(t.Context()); err != nil {
		t.Error(err)
	}
	return set, snaps, err
}

// Where somebody has removed the place of a snapshot before that is taken, the pool
// has what LVM does not know. It must not stay: LVM would give its number to the next
// volume.
func TestPlaceRemoved(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	next := func(name string) {
		t.Helper()
		scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--thin", "-V", "16m", "-n", name, g.name+"/pool")
	}
	_, snaps, err := takeAfter(t, v, "never", func() { scratch.Run(t, "lvremove", "--yes", "-q", g.name+"/"+namePrefix+"never-0") })
	if err != nil {
		t.Fatal(err)
	}
	if err := snaps[0].Release(t.Context()); err != nil { // and never shown
		t.Error(err)
	}
	next("b")
	_, snaps, err = takeAfter(t, v, "shown", func() { scratch.Run(t, "lvremove", "--yes", "-q", g.name+"/"+namePrefix+"shown-0") })
	if err != nil {
		t.Fatal(err)
	}
	if err := snaps[0].Err(); problem.CodeOf(err) != problem.SnapshotLost {
		t.Errorf("got %v, want snapshot-lost", err)
	}
	next("c")
	if err := snaps[0].Release(t.Context()); err != nil {
		t.Error(err)
	}
	// The number has gone to another volume, which is not ours to remove, though
	// it is not active.
	scratch.Run(t, "lvchange", "-an", g.name+"/c")
	_, snaps, err = takeAfter(t, v, "reused", func() {})
	if err != nil {
		t.Fatal(err)
	}
	scratch.Run(t, "lvremove", "--yes", "-q", g.name+"/"+namePrefix+"reused-0")
	next("d")
	if err := os.WriteFile("/dev/"+g.name+"/d", []byte("of somebody else"), 0); err != nil {
		t.Fatal(err)
	}
	scratch.Run(t, "lvchange", "-an", g.name+"/d")
	if err := snaps[0].Err(); problem.CodeOf(err) != problem.SnapshotLost {
		t.Errorf("got %v, want snapshot-lost", err)
	}
	snaps[0].(*target).empty()
	if err := snaps[0].Release(t.Context()); err != nil {
		t.Error(err)
	}
	scratch.Run(t, "lvchange", "-ay", g.name+"/d")
	if b, err := os.ReadFile("/dev/" + g.name + "/d"); err != nil || !strings.HasPrefix(string(b), "of somebody else") {
		t.Errorf("the volume of somebody else is gone: %v", err)
	}
}

// A volume that grows between Prepare and Commit is not taken with its old size.
func TestGrown(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	set, _, err := takeAfter(t, v, "grown", func() { scratch.Run(t, "lvextend", "--yes", "-q", "-L", "+64m", g.name+"/a") })
	if problem.CodeOf(err) != problem.SnapshotFailed || !strings.Contains(err.Error(), "size") {
		t.Errorf("got %v, want snapshot-failed", err)
	}
	if err := set.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := tool.Run(t.Context(), "lvs", g.name+"/"+namePrefix+"grown-0"); err == nil {
		t.Error("the place is still there")
	}
}

// LVM makes no volume in a pool that is above the threshold for its extension.
func TestThreshold(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "-l", "100%FREE", "-n", "rest", g.name) // dmeventd cannot extend it
	data := make([]byte, 200<<20)
	for i := range data {
		data[i] = 1
	}
	if err := os.WriteFile(v.Dir+"/large", data, 0o600); err != nil {
		t.Fatal(err)
	}
	scratch.Run(t, "sync", v.Dir)
	const profile = "/etc/lvm/profile/stillpoint-test.profile"
	if err := os.WriteFile(profile, []byte("activation {\n thin_pool_autoextend_threshold=50\n thin_pool_autoextend_percent=20\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(profile) })
	scratch.Run(t, "lvchange", "-q", "--metadataprofile", "stillpoint-test", g.name+"/pool")
	set, err := New(hostTable).Prepare(t.Context(), "above", []snapshot.Target{{Volume: v.Volume, Paths: []string{"."}}})
	if problem.CodeOf(err) != problem.PoolFull {
		t.Errorf("got %v, want pool-full", err)
	}
	if set != nil {
		_ = set.Abort(context.Background())
	}
	scratch.Run(t, "lvchange", "-q", "--detachprofile", g.name+"/pool")
}

// A pool that dmeventd watches, to extend it, is watched after a snapshot, too; and
// a suspended one is said to be.
func TestPoolAsBefore(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	watched := func() string {
		return strings.TrimSpace(scratch.Run(t, "lvs", "--noheadings", "-o", "seg_monitor", g.name+"/pool"))
	}
	if before := watched(); before != "monitored" {
		t.Logf("the pool is %q", before)
		scratch.Run(t, "lvchange", "--monitor", "y", g.name+"/pool")
	}
	before := watched()
	s := take(t, New(hostTable), "watched", v)[0]
	if err := s.Err(); err != nil {
		t.Error(err)
	}
	if now := watched(); now != before {
		t.Errorf("the pool was %q, and is %q with a snapshot", before, now)
	}
	if err := s.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if now := watched(); now != before {
		t.Errorf("the pool was %q, and is %q", before, now)
	}
	t.Logf("the pool is %q", before)
	scratch.Run(t, "dmsetup", "suspend", "--noflush", g.name+"-pool-tpool")
	err := New(hostTable).Check(t.Context(), v.Volume)
	scratch.Run(t, "dmsetup", "resume", g.name+"-pool-tpool")
	if problem.CodeOf(err) != problem.DeviceSuspended {
		t.Errorf("got %v, want device-suspended", err)
	}
}

// A pool can be extended while a snapshot in it is shown.
func TestPoolExtended(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "xfs")
	if err := os.WriteFile(v.Dir+"/file", []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := take(t, New(hostTable), "extended", v)[0]
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	scratch.Run(t, "lvextend", "--yes", "-q", "-L", "+32m", g.name+"/pool")
	if err := os.WriteFile(v.Dir+"/file", []byte("after it"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(s.Root() + "/file"); err != nil || string(b) != "before" {
		t.Errorf("%q, %v", b, err)
	}
	if err := s.Err(); err != nil {
		t.Error(err)
	}
	if err := s.Release(t.Context()); err != nil {
		t.Error(err)
	}
}
