package volume

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"stillpoint/internal/problem"
)

// TestLiveExt4 mounts ext4 in all the ways that mountinfo has to tell apart.
func TestLiveExt4(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const uuid = "0d5d1ba2-9f5c-4c9d-8d34-6d6e1f1f3a01"
	dir := scratch(t)
	img := image(t, filepath.Join(dir, "back ing\nfile"), 32<<20, "mkfs.ext4", "-q", "-U", uuid, "-L", "a label")
	full := makeDir(t, dir, "full")
	run(t, "mount", "-o", "loop,noatime", img, full)
	writeFile(t, filepath.Join(full, "a/b/file"), "x")
	makeDir(t, full, "a/gone")
	makeDir(t, full, "name (deleted)")

	odd := makeDir(t, dir, "sp ace\nnew line\ttab \\040 \xff\xfe#-")
	partial, single, gone, named, stack := makeDir(t, dir, "partial"), filepath.Join(dir, "single"), makeDir(t, dir, "gone"), makeDir(t, dir, "m (deleted)"), makeDir(t, dir, "stack")
	writeFile(t, single, "")
	bind(t, full, odd)
	bind(t, filepath.Join(full, "a"), partial)
	bind(t, filepath.Join(full, "a/b/file"), single)
	bind(t, filepath.Join(full, "a/gone"), gone)
	bind(t, filepath.Join(full, "name (deleted)"), named)
	if err := os.Remove(filepath.Join(full, "a/gone")); err != nil {
		t.Fatal(err)
	}
	mountTmpfs(t, stack)
	mountTmpfs(t, filepath.Join(stack, "hidden"))
	bind(t, filepath.Join(full, "a"), stack) // over the tmpfs and what lies in it
	mountTmpfs(t, filepath.Join(stack, "b"))
	if err := os.Symlink(partial, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}

	table := readLive(t)
	v := expect(t, table, full, uuid, full, ".", full)
	expect(t, table, filepath.Join(full, "a/b"), uuid, full, "a/b", full)
	expect(t, table, filepath.Join(odd, "a/b/file"), uuid, odd, "a/b/file", full)
	expect(t, table, filepath.Join(partial, "b/file"), uuid, partial, "a/b/file", full)
	expect(t, table, filepath.Join(dir, "link/b/../b/file"), uuid, partial, "a/b/file", full)
	expect(t, table, single, uuid, single, "a/b/file", full)
	expect(t, table, named, uuid, named, "name (deleted)", full)
	expect(t, table, stack, uuid, stack, "a", full)
	if b, m, rel, err := table.Find(filepath.Join(stack, "b")); err != nil || b.FSType != "tmpfs" || b.Kind != Memory || rel != "." || m.Point != filepath.Join(stack, "b") {
		t.Errorf("on the stack: got %+v, %+v, %q, %v", b, m, rel, err)
	}
	expectCode(t, table, gone, problem.VolumeLost)
	expectCode(t, table, filepath.Join(dir, "nothing"), problem.PathMissing)
	expectCode(t, table, filepath.Join(single, "below"), problem.PathMissing)
	expectCode(t, table, "", problem.PathMissing)
	expectCode(t, table, "a\x00b", problem.PathMissing)
	if in, err := table.Holder(filepath.Join(full, "a/b/journal")); err != nil || in.ID != v.ID {
		t.Errorf("what was in a folder: on %v, %v", in.ID, err)
	}
	for _, nowhere := range []string{filepath.Join(full, "no/journal"), "journal", ""} {
		if in, err := table.Holder(nowhere); !problem.Is(err, problem.PathMissing) {
			t.Errorf("%q: on %v, %v", nowhere, in.ID, err)
		}
	}

	want := []string{full, gone, named, partial, single, odd, stack, filepath.Join(stack, "b")}
	slices.SortFunc(want, comparePaths)
	if got := points(table.Below(dir)); !slices.Equal(got, want) {
		t.Errorf("below: got %q\nwant %q", got, want)
	}
	if v.Label != "a label" || v.UUID != uuid || v.Kind != Local || v.ReadOnly || v.Size == 0 || v.Free == 0 || v.Free > v.Size || v.Used > v.Size {
		t.Errorf("got %+v", v)
	}
	if len(v.Stack) != 1 || v.Stack[0].Type != "loop" || v.Stack[0].File != img || v.Stack[0].Size != 32<<20 || v.Stack[0].Number != v.Device {
		t.Errorf("stack: got %+v", v.Stack)
	}
	if len(v.Mounts) != 7 {
		t.Errorf("got %d mounts: %+v", len(v.Mounts), v.Mounts)
	}
	if err := syscall.Mount("", full, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	v, m, _, err := readLive(t).Find(full)
	if err != nil || v.ReadOnly || !m.ReadOnly {
		t.Errorf("read-only mount: volume %v, mount %v, %v", v.ReadOnly, m.ReadOnly, err)
	}
	mountTmpfs(t, full)
	expectCode(t, table, full, problem.VolumeLost) // changed since the table was read
	for _, w := range readLive(t).Warnings() {
		if strings.Contains(w.Error(), dir) {
			t.Error(w)
		}
	}
}

// TestLiveBtrfs mounts subvolumes of a btrfs on two devices.
func TestLiveBtrfs(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := scratch(t)
	var loops []string
	imgs := []string{filepath.Join(dir, "1"), filepath.Join(dir, "2")}
	for _, img := range imgs {
		image(t, img, 256<<20, "true")
		loops = append(loops, run(t, "losetup", "--find", "--show", img))
	}
	detach := sync.OnceFunc(func() { run(t, append([]string{"losetup", "--detach"}, loops...)...) })
	defer detach()
	run(t, append([]string{"mkfs.btrfs", "-q", "-L", "two disks", "-m", "raid1", "-d", "raid1"}, loops...)...)
	uuid := ID(run(t, "blkid", "-p", "-o", "value", "-s", "UUID", loops[0]))
	top := makeDir(t, dir, "top")
	run(t, "mount", "-o", "device="+loops[0]+",device="+loops[1], loops[0], top)
	detach() // the kernel does when they are no longer mounted, even if the test is killed
	for _, s := range []string{"@", "@/ne,st ed", "@home"} {
		run(t, "btrfs", "-q", "subvolume", "create", filepath.Join(top, s))
	}
	makeDir(t, top, "@/ne,st ed/d/e")
	makeDir(t, top, "@home/www/x")
	mnt := map[string]string{}
	for _, n := range []string{"root", "nested", "home", "www", "deep", "again"} {
		mnt[n] = makeDir(t, dir, n)
	}
	run(t, "mount", "-o", "subvol=@", loops[0], mnt["root"])
	run(t, "mount", "-o", "subvolid="+run(t, "btrfs", "inspect-internal", "rootid", filepath.Join(top, "@/ne,st ed")), loops[1], mnt["nested"])
	run(t, "mount", "-o", "subvol=@home", loops[0], mnt["home"])
	bind(t, filepath.Join(top, "@home/www"), mnt["www"])
	bind(t, filepath.Join(top, "@/ne,st ed/d"), mnt["deep"])
	bind(t, filepath.Join(mnt["root"], "ne,st ed"), mnt["again"])

	sub := func(path string) ID {
		return uuid + "/" + ID(run(t, "btrfs", "inspect-internal", "rootid", filepath.Join(top, path)))
	}
	root, nested, home := sub("@"), sub("@/ne,st ed"), sub("@home")
	table := readLive(t)
	v := expect(t, table, top, uuid+"/5", top, ".", top)
	expect(t, table, filepath.Join(top, "@home/www"), uuid+"/5", top, "@home/www", top)
	expect(t, table, filepath.Join(mnt["root"]), root, mnt["root"], ".", mnt["root"])
	expect(t, table, filepath.Join(mnt["root"], "ne,st ed/d/e"), root, mnt["root"], "ne,st ed/d/e", mnt["root"])
	expect(t, table, filepath.Join(mnt["nested"], "d"), nested, mnt["nested"], "d", mnt["nested"])
	expect(t, table, mnt["again"], nested, mnt["again"], ".", mnt["nested"])
	expect(t, table, filepath.Join(mnt["deep"], "e"), nested, mnt["deep"], "d/e", mnt["nested"])
	expect(t, table, filepath.Join(mnt["www"], "x"), home, mnt["www"], "www/x", mnt["home"])
	n, _, _, _ := table.Find(mnt["deep"])
	if n.Subvolume == nil || n.Subvolume.Path != "/@/ne,st ed" || len(n.Mounts) != 3 {
		t.Errorf("nested: got %+v", n)
	}
	if v.Label != "two disks" || v.Kind != Local || v.Size == 0 || v.Free > v.Size || len(v.Stack) != 2 || v.Stack[0].Level+v.Stack[1].Level != 0 {
		t.Errorf("got %+v", v)
	}
	if files := []string{v.Stack[0].File, v.Stack[1].File}; !slices.Equal(slices.Sorted(slices.Values(files)), imgs) {
		t.Errorf("backing files: %q", files)
	}
	if got := len(table.Below(dir)); got != 7 {
		t.Errorf("%d mounts below", got)
	}

	// The same without the ioctl: sysfs knows which btrfs has the device.
	r := Host()
	r.Probe = mute{host{}}
	quiet, err := Read(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, quiet, mnt["deep"], nested, mnt["deep"], "d", mnt["nested"])
}

// A mute probe knows no UUIDs.
type mute struct{ host }

func (m mute) FileSystem(point string, mount int) (Facts, error) {
	f, err := m.host.FileSystem(point, mount)
	return Facts{Size: f.Size, Free: f.Free, Used: f.Used}, err
}
