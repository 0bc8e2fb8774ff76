//go:build vm

package lvm

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
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/thinpool"
	"stillpoint/internal/tool"
	"stillpoint/internal/volume"
)

// take takes a set of everything in the volumes.
func take(t *testing.T, p *Provider, id string, vs ...snapshottest.Volume) []snapshot.Snapshot {
	t.Helper()
	var ts []snapshot.Target
	for _, v := range vs {
		ts = append(ts, snapshot.Target{Volume: v.Volume, Paths: []string{"."}})
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 3*time.Minute)
	defer cancel()
	set, err := p.Prepare(ctx, id, ts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Abort(context.Background()); err != nil {
			t.Errorf("abort: %v", err)
		}
	})
	err = set.Hold(ctx)
	var snaps []snapshot.Snapshot
	if err == nil {
		snaps, err = set.Commit(ctx)
	}
	if rerr := set.Resume(ctx); err != nil || rerr != nil {
		t.Fatal(err, rerr)
	}
	for _, s := range snaps {
		t.Cleanup(func() {
			if err := s.Release(context.Background()); err != nil {
				t.Errorf("release: %v", err)
			}
		})
	}
	return snaps
}

// An lvremove of ours is refused while the snapshot is shown, and noticed when
// it came before. The origin goes on.
func TestRemovedByAnother(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	p := New(hostTable)
	remove := func(id string) error {
		_, err := tool.Run(t.Context(), "lvremove", "--yes", g.name+"/"+namePrefix+id+"-0")
		return err
	}
	first := take(t, p, "first", v)[0]
	if err := remove("first"); err != nil {
		t.Fatal(err)
	}
	if err := first.Err(); problem.CodeOf(err) != problem.SnapshotLost || !strings.Contains(err.Error(), "removed its logical volume") {
		t.Errorf("removed before it was shown: %v", err)
	}
	if _, err := os.ReadDir(first.Root()); err == nil {
		t.Error("what was removed is shown")
	}
	second := take(t, p, "second", v)[0]
	if _, err := os.ReadDir(second.Root()); err != nil {
		t.Fatal(err)
	}
	if err := remove("second"); err == nil {
		t.Error("lvremove was not refused while it is shown")
	}
	if err := second.Err(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(v.Dir+"/after", nil, 0o600); err != nil {
		t.Error(err)
	}
}

// Somebody replaces the device of a snapshot by errors.
func TestForcedOut(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "xfs")
	s := take(t, New(hostTable), "forced", v)[0]
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	_, _ = tool.Run(t.Context(), "dmsetup", "remove", "--force", s.(*target).devices.upper.Name) // fails after it has done that
	if err := s.Err(); problem.CodeOf(err) != problem.SnapshotLost {
		t.Errorf("got %v, want snapshot-lost", err)
	}
}

// A pool that fills up costs the snapshot, and no writer in it anything.
func TestPoolFills(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	p := New(hostTable)
	data := make([]byte, 4<<20)
	fill := func(round byte, files int) (longest time.Duration) {
		for i := range data {
			data[i] = round
		}
		for i := range files {
			begun := time.Now()
			f, err := os.OpenFile(fmt.Sprint(v.Dir, "/file", i), os.O_CREATE|os.O_WRONLY, 0o600)
			if err == nil {
				_, err = f.Write(data)
			}
			if err == nil {
				err = f.Sync()
			}
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			longest = max(longest, time.Since(begun))
			time.Sleep(100 * time.Millisecond)
		}
		return longest
	}
	// Its file system has more free than its pool.
	if of, why := bounded(t, v); why != "" || of.Free == 0 || of.Free > 300<<20 || of.Free >= v.Volume.Free {
		t.Errorf("%d MiB free of %d, %s", of.Free>>20, v.Volume.Free>>20, why)
	}
	fill(1, 40)
	s := take(t, p, "fills", v)[0]
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	longest := fill(2, 40) // what is shared now is written anew
	t.Logf("the longest write took %v", longest)
	if err := s.Err(); problem.CodeOf(err) != problem.PoolFull {
		t.Errorf("got %v, want pool-full", err)
	}
	if _, err := os.ReadFile(s.Root() + "/file0"); err == nil {
		t.Error("what was given up is shown")
	}
	fill(3, 40)
	if err := s.Release(t.Context()); err != nil {
		t.Error(err)
	}
	// The second time there is not even room to begin with.
	for i := 40; ; i++ {
		f, err := os.Create(fmt.Sprint(v.Dir, "/file", i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := p.Check(t.Context(), v.Volume); err != nil {
			if problem.CodeOf(err) != problem.PoolFull {
				t.Errorf("got %v, want pool-full", err)
			}
			break
		}
	}
	if _, err := p.Prepare(t.Context(), "full", []snapshot.Target{{Volume: v.Volume, Paths: []string{"."}}}); problem.CodeOf(err) != problem.PoolFull {
		t.Errorf("got %v, want pool-full", err)
	}
	// Nor for another provider's cache file.
	if of, why := bounded(t, v); of.Free != 0 || !strings.Contains(why, "MiB left") {
		t.Errorf("%d MiB free, %s", of.Free>>20, why)
	}
}

// bounded is a volume as its pool bounds it.
func bounded(t *testing.T, v snapshottest.Volume) (volume.Volume, string) {
	t.Helper()
	now, _ := scratch.Find(t, v.Dir)
	all, short := thinpool.Bounded([]volume.Volume{now})
	return all[0], short[now.ID]
}

// Nobody sees the snapshot: not udev and its links, not when all devices are
// looked at anew, and not LVM when it activates what there is.
func TestUnseen(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			g := newGroup(t, 300)
			v := g.thin(t, "a", fs)
			scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "-l", "100%FREE", "-n", "rest", g.name) // the group is full
			links := func() string {
				scratch.Run(t, "udevadm", "settle")
				return scratch.Run(t, "sh", "-c", "cd /dev && find disk/by-uuid disk/by-label disk/by-id "+g.name+" -type l -printf '%p %l\\n' | sort; blkid -t UUID="+v.Volume.UUID+" -o device")
			}
			// udev does not watch dm devices: tell it that there is a file system now.
			scratch.Run(t, "udevadm", "trigger", "--action=change", "--settle", "/dev/"+g.name+"/a")
			before := links()
			if !strings.Contains(before, v.Volume.UUID) {
				t.Fatalf("there is no link by UUID:\n%s", before)
			}
			same := func(when string) {
				t.Helper()
				if now := links(); now != before {
					t.Errorf("%s there is\n%sand was\n%s", when, now, before)
				}
			}
			s := take(t, New(hostTable), "unseen", v)[0]
			same("before it is shown")
			if err := s.Err(); err != nil {
				t.Fatal(err)
			}
			same("shown")
			scratch.Run(t, "udevadm", "trigger", "--subsystem-match=block", "--action=change", "--settle")
			same("after all devices changed")
			scratch.Run(t, "vgchange", "--activate", "y", "-q", g.name)
			same("after the group was activated")
			if err := s.Err(); err != nil {
				t.Error(err)
			}
			if err := s.Release(t.Context()); err != nil {
				t.Error(err)
			}
			same("released")
		})
	}
}

// What was left is not activated with its group, as at boot, and removed by the
// next process.
func TestLeftInactive(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	s := take(t, New(hostTable), "left", v)[0].(*target)
	// As after a power cut: no devices, and a process that is none of this boot.
	name := s.place.lv.full()
	was, _ := s.place.lv.read()
	is := was
	is.by.boot = "another"
	is.proof = is.digest(s.place.lv.GroupUUID, s.place.lv.Name)
	args := []string{"-q", name}
	for i, tag := range is.tags() {
		if old := was.tags()[i]; old != tag {
			args = append(args, "--deltag", old, "--addtag", tag)
		}
	}
	scratch.Run(t, "lvchange", args...)
	scratch.Run(t, "vgchange", "--activate", "y", "-q", g.name)
	if attr := scratch.Run(t, "lvs", "--noheadings", "-o", "lv_active", name); strings.Contains(attr, "active") {
		t.Errorf("it was activated with its group: %q", attr)
	}
	left, err := New(hostTable).Leftovers(t.Context())
	if err != nil || len(left) != 1 {
		t.Fatalf("leftovers: %v, %v", left, err)
	}
	if err := left[0].Release(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := tool.Run(t.Context(), "lvs", name); err == nil {
		t.Error("it is still there")
	}
}

// What is none of its kind, or not fit now, it says by a code, and waits for none.
func TestRefusals(t *testing.T) {
	g := newGroup(t, 300)
	thin := g.thin(t, "thin", "ext4")
	p := New(hostTable)
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "-L", "64m", "-n", "thick", g.name)
	thick := g.mount(t, "thick", "ext4")
	if err := p.Check(t.Context(), thick.Volume); problem.CodeOf(err) != problem.NoProvider || !strings.Contains(err.Error(), "classic") {
		t.Errorf("thick: %v", err)
	}
	other := thin.Volume
	other.FSType = "btrfs"
	if err := p.Check(t.Context(), other); problem.CodeOf(err) != problem.NoProvider {
		t.Errorf("btrfs: %v", err)
	}
	scratch.Run(t, "dmsetup", "suspend", g.name+"-thin")
	err := p.Check(t.Context(), thin.Volume)
	scratch.Run(t, "dmsetup", "resume", g.name+"-thin")
	if problem.CodeOf(err) != problem.DeviceSuspended {
		t.Errorf("suspended: %v", err)
	}
	if err := p.Check(t.Context(), thin.Volume); err != nil {
		t.Error(err)
	}
}

// What another machine made, on a disk that both can reach, is left to it.
func TestOtherMachine(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	group := reportOf(t, scratch.Run(t, "lvs", "--reportformat", "json", "-o", columns, g.name+"/a"))[0].GroupUUID
	c := claim{set: "abc", of: "x", by: owner{"machine", "boot", "1", "1"}}
	c.proof = c.digest(group, namePrefix+"abc-0")
	args := []string{"--yes", "-q", "-q", "-an", "--thin", "-V", "16m", "-n", namePrefix + "abc-0", g.name + "/pool"}
	for _, tag := range c.tags() {
		args = append(args, "--addtag", tag)
	}
	scratch.Run(t, "lvcreate", args...)
	left, err := New(hostTable).Leftovers(t.Context())
	if len(left) != 0 || !problem.Is(err, problem.LeftoverForeign) || !strings.Contains(err.Error(), "another machine") {
		t.Errorf("%v, %v", left, err)
	}
	_ = v
}
