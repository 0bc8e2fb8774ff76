package btrfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
)

// Only one subvolume is mounted, deep in others: nothing of those is needed.
func TestSubvolumeMountedAlone(t *testing.T) {
	d := newDisk(t)
	d.create("@", "@/srv/www", "@/srv/www/cache", "@home")
	v := d.mounted("@/srv/www")
	scratch.Run(t, "umount", d.Dir)
	s := take(t, of(v, "."))[0]
	shows(t, s, ". cache", "")
	reads(t, s, map[string]string{".": "@/srv/www", "cache": "@/srv/www/cache"})
}

// Bind mounts, of a directory and of a file in it, show the same volume.
func TestBindMount(t *testing.T) {
	d := newDisk(t)
	d.create("@", "@/data/deep/sub")
	must(t, os.WriteFile(d.in("@/data/in"), []byte("data"), 0o644))
	point := d.Mount(t, "subvol=@")
	bind := d.Bind(t, point+"/data/deep")
	scratch.Run(t, "umount", point)
	v := find(t, bind)
	if v.Mounts[0].Root != "/data/deep" {
		t.Fatalf("the bind mount shows %q", v.Mounts[0].Root)
	}
	s := take(t, of(v, "data"))[0]
	shows(t, s, ". data/deep/sub", "")
	reads(t, s, map[string]string{"data": "data", "data/deep/sub": "@/data/deep/sub"})
}

// Nested subvolumes are taken and shown at their places, but for snapshots
// that other programs keep, unless one is selected.
func TestNested(t *testing.T) {
	d := newDisk(t)
	d.create("@", "@/a", "@/a/b", "@/a/b/c", "@/x/y", "@/readonly")
	d.keepOld("@", "@/old")
	d.keepOld("@/a", "@/a/older")
	scratch.Run(t, "btrfs", "property", "set", d.in("@/readonly"), "ro", "true")
	v := d.mounted("@")
	for _, test := range []struct{ paths, parts, gaps string }{
		{".", ". a a/b a/b/c readonly x/y", "a/older:rule old:rule"},
		{"a", "a a/b a/b/c", "a/older:rule"},
		{"a/b", "a/b a/b/c", ""},
		{"x", ". x/y", ""},
		{"x/y", "x/y", ""},
		{"x/y/in a/b/c/in", "a/b/c x/y", ""},
		{"in", ".", ""},
		{"in a/b/c", ". a/b/c", ""},
		{"in x/y/in", ". x/y", ""},
		{"in a/in a/b/in", ". a a/b", ""},
		{"old", "old", ""},
		{"old/in", "old", ""},
		{". old", ". a a/b a/b/c old readonly x/y", "a/older:rule"},
		{"a/older/in a", "a a/b a/b/c a/older", ""},
		{"a/./b/../b", "a/b a/b/c", ""},
	} {
		t.Run(strings.ReplaceAll(test.paths, "/", "-"), func(t *testing.T) {
			s := take(t, of(v, strings.Fields(test.paths)...))[0]
			shows(t, s, test.parts, test.gaps)
			want := map[string]string{}
			for _, p := range strings.Fields(test.parts) {
				want[p] = filepath.Join("@", p)
				switch p {
				case "old":
					want[p] = "@"
				case "a/older":
					want[p] = "@/a"
				}
			}
			reads(t, s, want)
		})
	}
}

// Of the top level everything is shown, but nothing of our own, also of
// another set, is.
func TestTopLevel(t *testing.T) {
	d := newDisk(t)
	d.create("@", "@/nested", "plain")
	must(t, os.WriteFile(d.in("in"), []byte("top"), 0o644))
	top := find(t, d.Dir)
	first := take(t, of(top, "."))[0]
	second := take(t, of(top, "."))[0]
	for _, s := range []snapshot.Snapshot{first, second} {
		shows(t, s, ". @ @/nested plain", "")
		reads(t, s, map[string]string{".": "top", "@/nested": "@/nested", "plain": "plain"})
		if n := names(t, s.Root()+"/"+folderName); n != "" {
			t.Errorf("of our own %q is shown", n)
		}
	}
	_, err := New(host).Prepare(t.Context(), "into", []snapshot.Target{of(top, folderName+"/x")})
	hasCode(t, "our own folder selected", err, problem.PathMissing)
	must(t, first.Release(t.Context()))
	must(t, second.Release(t.Context()))
	if n := names(t, d.Dir); n != "@ in plain" {
		t.Errorf("left: %s", n)
	}
}

// What several targets need is taken once, and goes with the last of them.
func TestSharedSubvolume(t *testing.T) {
	d := newDisk(t)
	d.create("@", "@/home", "@/home/user", "@/srv")
	root, home := d.mounted("@"), d.mounted("@/home")
	pending := prepare(t, of(root, "."), of(home, "."))
	if n := pending.Instants(); n != 4 {
		t.Errorf("%d instants", n)
	}
	snaps := commit(t, pending)
	shows(t, snaps[0], ". home home/user srv", "")
	shows(t, snaps[1], ". user", "")
	must(t, snaps[0].Release(t.Context()))
	reads(t, snaps[1], map[string]string{".": "@/home", "user": "@/home/user"})
	if n := strings.Count(scratch.Run(t, "btrfs", "subvolume", "list", d.Dir), snapshotName); n != 2 {
		t.Errorf("%d snapshots are left of the set", n)
	}
	must(t, snaps[1].Release(t.Context()))
	if n := names(t, d.Dir); n != "@" {
		t.Errorf("left: %s", n)
	}
}

// A file system of several devices, found by whichever was named.
func TestTwoDevices(t *testing.T) {
	d := newDisk(t, scratch.Devices(2), scratch.Format("-d", "raid1", "-m", "raid1"))
	d.create("@", "@/nested")
	s := take(t, of(find(t, d.Dir), "."))[0]
	reads(t, s, map[string]string{"@": "@", "@/nested": "@/nested"})
}

// Two file systems in one set.
func TestTwoFileSystems(t *testing.T) {
	a, b := newDisk(t), newDisk(t)
	a.create("one", "one/sub")
	b.create("two")
	snaps := take(t, of(find(t, a.Dir), "."), of(find(t, b.Dir), "."))
	reads(t, snaps[0], map[string]string{"one/sub": "one/sub"})
	reads(t, snaps[1], map[string]string{"two": "two"})
	if snaps[0].Parts()[0].Taken.Equal(snaps[1].Parts()[0].Taken) {
		t.Error("two file systems have one instant")
	}
}

// Docker has a subvolume for each layer. All are taken within few
// transactions, and mounted quickly.
func TestManyNested(t *testing.T) {
	d := newDisk(t)
	d.create("docker")
	want := map[string]string{}
	for i := range 50 {
		p := fmt.Sprintf("docker/btrfs/subvolumes/%064d", i)
		d.create(p)
		want[p] = p
	}
	v := find(t, d.Dir)
	began := time.Now()
	pending := prepare(t, of(v, "."))
	prepared := time.Now()
	snaps := commit(t, pending)
	committed := time.Now()
	s := snaps[0]
	reads(t, s, want)
	shown := time.Now()
	must(t, s.Release(t.Context()))
	t.Logf("prepare %v, commit %v, show and read %v, release %v",
		prepared.Sub(began), committed.Sub(prepared), shown.Sub(committed), time.Since(shown))
	instants := map[time.Time]bool{}
	for _, p := range s.Parts() {
		instants[p.Taken] = true
	}
	t.Logf("%d parts of %d instants", len(s.Parts()), len(instants))
	if len(s.Parts()) != 52 {
		t.Errorf("%d parts", len(s.Parts()))
	}
}

// A snapshot does not keep anybody from unmounting the volume, and does not need
// it to be mounted.
func TestUnmountedMeanwhile(t *testing.T) {
	d := newDisk(t)
	d.create("@", "@/a")
	v := d.mounted("@")
	pending := prepare(t, of(v, "."))
	scratch.Run(t, "umount", d.Dir)
	s := commit(t, pending)[0]
	scratch.Run(t, "umount", v.Mounts[0].Point)
	reads(t, s, map[string]string{".": "@", "a": "@/a"})
	must(t, s.Release(t.Context()))
	scratch.Run(t, "mount", d.Devices[0], d.Dir)
	if n := names(t, d.Dir); n != "@" {
		t.Errorf("left: %s", n)
	}
}
