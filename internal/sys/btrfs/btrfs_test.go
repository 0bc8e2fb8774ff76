package btrfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/btrfs"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func ask(t *testing.T, f *os.File) btrfs.Subvolume {
	t.Helper()
	s, err := btrfs.Ask(f)
	must(t, err)
	return s
}

func TestUUID(t *testing.T) {
	const text = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
	var u btrfs.UUID
	must(t, u.UnmarshalText([]byte(text)))
	if u.String() != text {
		t.Errorf("%s became %s", text, u)
	}
	for _, bad := range []string{"", "0a1b", strings.Repeat("x", 36)} {
		if u.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q is taken for an UUID", bad)
		}
	}
}

// The life of a snapshot, compared with what the btrfs program says.
func TestSnapshot(t *testing.T) {
	v := scratch.New(t, "btrfs", 128*scratch.MiB)
	top := open(t, v.Dir)
	must(t, btrfs.Create(top, "source"))
	source := open(t, v.Dir+"/source")
	must(t, os.WriteFile(v.Dir+"/source/file", []byte("content"), 0o600))
	if err := btrfs.Create(top, "source"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create twice: %v", err)
	}
	must(t, btrfs.Snapshot(source, top, "snap"))

	snap := open(t, v.Dir+"/snap")
	a, b := ask(t, source), ask(t, snap)
	if a.ReadOnly || !b.ReadOnly || b.Parent != a.UUID || b.ID != a.ID+1 || b.Created < a.Created || b.Changed > b.Created || b.Made.IsZero() {
		t.Errorf("source %+v, snapshot %+v", a, b)
	}
	shown := scratch.Run(t, "btrfs", "subvolume", "show", v.Dir+"/snap")
	for _, want := range []string{b.UUID.String(), a.UUID.String(), fmt.Sprint(b.ID), b.Made.UTC().Format("2006-01-02 15:04:05")} {
		if !strings.Contains(shown, want) {
			t.Errorf("the btrfs program does not say %s:\n%s", want, shown)
		}
	}
	fsys, err := btrfs.Describe(snap)
	must(t, err)
	if found, _ := scratch.Find(t, v.Dir); fsys.UUID.String() != found.UUID || fsys.Devices != 1 || fsys.Generation < b.Created {
		t.Errorf("file system %+v", fsys)
	}

	if err := os.WriteFile(v.Dir+"/snap/file", nil, 0); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write to it: %v", err)
	}
	must(t, btrfs.SetReadOnly(snap, false))
	must(t, os.WriteFile(v.Dir+"/snap/file", []byte("changed"), 0))
	must(t, btrfs.SetReadOnly(snap, true))
	if now := ask(t, snap); !now.ReadOnly || now.UUID != b.UUID || now.Changed <= b.Changed {
		t.Errorf("after a change: %+v, before %+v", now, b)
	}

	f := open(t, v.Dir+"/snap/file")
	must(t, btrfs.Delete(top, b.ID))
	if _, err := os.Stat(v.Dir + "/snap"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Delete: %v", err)
	}
	if _, err := btrfs.Ask(snap); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the deleted one says %v", err)
	}
	if text, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil || string(text) != "changed" {
		t.Errorf("a file open since before: %q, %v", text, err)
	}
	if err := btrfs.Delete(top, b.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("delete twice: %v", err)
	}
}

// The devices of a mounted file system, and what a path leads to.
func TestDeviceNumbers(t *testing.T) {
	v := scratch.New(t, "btrfs", 128*scratch.MiB, scratch.Devices(2))
	fsys, err := btrfs.Describe(open(t, v.Dir))
	must(t, err)
	if fsys.OnDisk != fsys.UUID {
		t.Errorf("%+v", fsys)
	}
	var want []string
	for _, d := range v.Devices {
		n, err := btrfs.DeviceNumber(d)
		must(t, err)
		want = append(want, n)
	}
	got := btrfs.DeviceNumbers(fsys.UUID)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || want[0] == want[1] {
		t.Errorf("%q, not %q", got, want)
	}
	if none := btrfs.DeviceNumbers(btrfs.UUID{}); none != nil {
		t.Errorf("no file system has %q", none)
	}
	if _, err := btrfs.DeviceNumber("/dev/null"); !errors.Is(err, syscall.ENOTBLK) {
		t.Errorf("%v", err)
	}
	if _, err := btrfs.DeviceNumber("/dev/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// All subvolumes are listed, more than fit into one answer, and where they are.
func TestList(t *testing.T) {
	v := scratch.New(t, "btrfs", 256*scratch.MiB)
	top := open(t, v.Dir)
	want := map[string]bool{}
	create := func(path string) {
		t.Helper()
		dir := filepath.Join(v.Dir, filepath.Dir(path))
		must(t, os.MkdirAll(dir, 0o755))
		must(t, btrfs.Create(open(t, dir), filepath.Base(path)))
		want[path] = true
	}
	create("one")
	create("one/in/two")
	create("one/in/two/three")
	for i := range 300 {
		create(fmt.Sprintf("many/of them/%d-%s", i, strings.Repeat("n", 200)))
	}
	must(t, btrfs.Create(top, "gone"))
	list, err := btrfs.List(top)
	must(t, err)
	must(t, btrfs.Delete(top, list[len(list)-1].ID))
	list, err = btrfs.List(top)
	must(t, err)
	if len(list) != len(want) {
		t.Errorf("%d subvolumes of %d", len(list), len(want))
	}
	paths := map[uint64]string{btrfs.TopLevel: "."}
	for _, e := range list { // outer ones come first here
		dir, err := btrfs.Path(top, e.Within, e.Dir)
		must(t, err)
		paths[e.ID] = filepath.Join(paths[e.Within], dir, e.Name)
		if !want[paths[e.ID]] {
			t.Errorf("%+v is at %s", e, paths[e.ID])
		}
		if s := ask(t, open(t, filepath.Join(v.Dir, paths[e.ID]))); s.ID != e.ID || s.UUID != e.UUID || s.ReadOnly != e.ReadOnly {
			t.Errorf("%+v says %+v", e, s)
		}
	}
}

// A snapshot still has the names of what was nested.
func TestStubs(t *testing.T) {
	v := scratch.New(t, "btrfs", 128*scratch.MiB)
	top := open(t, v.Dir)
	must(t, btrfs.Create(top, "s"))
	must(t, os.Mkdir(v.Dir+"/s/dir", 0o755))
	must(t, btrfs.Create(open(t, v.Dir+"/s/dir"), "old"))
	before, err := btrfs.Describe(top)
	must(t, err)
	scratch.Run(t, "sync", "-f", v.Dir)
	must(t, btrfs.Create(open(t, v.Dir+"/s/dir"), "new"))
	must(t, btrfs.Snapshot(open(t, v.Dir+"/s"), top, "snap"))
	snap := ask(t, open(t, v.Dir+"/snap"))

	list, err := btrfs.List(top)
	must(t, err)
	named := func(name string) btrfs.Entry {
		return list[slices.IndexFunc(list, func(e btrfs.Entry) bool { return e.Name == name })]
	}
	for _, name := range []string{"old", "new"} {
		e := named(name)
		stub, ok, err := btrfs.StubAt(top, snap.ID, e.Dir, e.Index)
		if !ok || err != nil || stub.ID != e.ID || stub.Name != name || stub.Dir != e.Dir {
			t.Errorf("%s: %+v, %t, %v", name, stub, ok, err)
		}
		fi, err := os.Stat(v.Dir + "/snap/dir/" + name)
		must(t, err)
		if inode := fi.Sys().(*syscall.Stat_t).Ino; inode != 2 { // BTRFS_EMPTY_SUBVOL_DIR_OBJECTID
			t.Errorf("its inode is %d", inode)
		}
	}
	if _, ok, err := btrfs.StubAt(top, snap.ID, named("old").Dir, 12345); ok || err != nil {
		t.Errorf("nothing is there: %t, %v", ok, err)
	}
	stubs, err := btrfs.StubsSince(top, snap.ID, before.Generation+1)
	must(t, err)
	if len(stubs) != 1 || stubs[0].ID != named("new").ID {
		t.Errorf("added: %+v", stubs)
	}
	if dir, err := btrfs.Path(top, snap.ID, stubs[0].Dir); dir != "dir" || err != nil {
		t.Errorf("in %q, %v", dir, err)
	}
	stubs, err = btrfs.StubsSince(top, snap.ID, 0)
	must(t, err)
	if len(stubs) != 2 {
		t.Errorf("ever: %+v", stubs)
	}
}

// Errors are errno, with the call.
func TestErrors(t *testing.T) {
	f := open(t, t.TempDir())
	_, err := btrfs.Describe(f)
	if !errors.Is(err, syscall.ENOTTY) || !strings.Contains(err.Error(), "BTRFS_IOC_FS_INFO") {
		t.Errorf("%v", err)
	}
	if err := btrfs.Snapshot(f, f, strings.Repeat("n", 5000)); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("%v", err)
	}
}

// A path that is longer than the kernel's answer can be.
func TestLongPath(t *testing.T) {
	v := scratch.New(t, "btrfs", 128*scratch.MiB)
	top := open(t, v.Dir)
	at, want := open(t, v.Dir), ""
	for i := range 30 {
		name := fmt.Sprint(strings.Repeat("n", 200), i)
		must(t, syscall.Mkdirat(int(at.Fd()), name, 0o755))
		n, err := syscall.Openat(int(at.Fd()), name, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		must(t, err)
		at.Close()
		at = os.NewFile(uintptr(n), name)
		want = strings.TrimPrefix(want+"/"+name, "/")
		info, err := at.Stat()
		must(t, err)
		got, err := btrfs.Path(top, btrfs.TopLevel, info.Sys().(*syscall.Stat_t).Ino)
		if err != nil || got != want {
			t.Fatalf("level %d: %v, %q", i, err, got)
		}
	}
	at.Close()
}
