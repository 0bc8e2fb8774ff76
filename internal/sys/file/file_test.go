package file

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

func open(t *testing.T, dir int, name string, mode Mode) int {
	t.Helper()
	fd, err := Open(dir, name, mode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Close(fd); err != nil {
			t.Error(err)
		}
	})
	return fd
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestErrorsAreTheKernels(t *testing.T) {
	dir := open(t, Here, t.TempDir(), Read|Directory)
	_, err := Stat(dir, "none", NoFollow)
	var p *os.PathError
	if !errors.As(err, &p) || p.Op != "statx" || p.Path != "none" || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("%#v", err)
	}
}

func TestList(t *testing.T) {
	path := t.TempDir()
	dir := open(t, Here, path, Read|Directory)
	want := map[string]Kind{}
	for i := range 500 {
		name := fmt.Sprintf("file-%d-\xff\n", i)
		want[name] = Regular
		do(t, os.WriteFile(filepath.Join(path, name), nil, 0o600))
	}
	do(t, MakeDirectory(dir, "dir"), MakeSymlink(dir, "link", "x"), MakeNode(dir, "fifo", FIFO, 0), MakeNode(dir, "socket", Socket, 0))
	want["dir"], want["link"], want["fifo"], want["socket"] = Folder, Symlink, FIFO, Socket
	for range 2 { // every list begins at the start
		got := map[string]Kind{}
		do(t, List(dir, make([]byte, 4096), func(name []byte, kind Kind, inode uint64) error {
			info, err := Stat(dir, string(name), NoFollow)
			if err != nil || info.Inode != inode || info.Kind != kind {
				t.Errorf("%q: inode %d, kind %#o; statx says %+v, %v", name, inode, kind, info, err)
			}
			got[string(name)] = kind
			return nil
		}))
		if len(got) != len(want) {
			t.Errorf("%d names, not %d", len(got), len(want))
		}
	}
	stop := errors.New("stop")
	if err := List(dir, make([]byte, 4096), func([]byte, Kind, uint64) error { return stop }); err != stop {
		t.Error(err)
	}
}

// TestParseRefusesNonsense: what a file system in user space writes into a
// directory is not trusted.
func TestParseRefusesNonsense(t *testing.T) {
	record := func(length byte, name string) []byte {
		b := make([]byte, 19, 64)
		b[16], b[18] = length, 8
		return append(append(b, name...), 0, 0, 0, 0)
	}
	var names []string
	each := func(name []byte, _ Kind, _ uint64) error { names = append(names, string(name)); return nil }
	for _, b := range [][]byte{record(0, "x"), record(19, "x"), record(200, "x")} {
		if err := parse(b, each); !errors.Is(err, syscall.EBADMSG) {
			t.Errorf("%v: %v", b, err)
		}
	}
	do(t, parse(record(24, "x"), each), parse(record(24, ".."), each))
	if !slices.Equal(names, []string{"x"}) {
		t.Errorf("names %q", names)
	}
}

// TestXattrsBothWays compares the calls of Linux 6.13 with the way by /proc.
func TestXattrsBothWays(t *testing.T) {
	path := t.TempDir()
	dir := open(t, Here, path, Read|Directory)
	do(t, os.WriteFile(filepath.Join(path, "file"), nil, 0o600), MakeSymlink(dir, "link", "file"))
	fd := open(t, dir, "file", Write)
	large := bytes.Repeat([]byte("large"), 300)
	do(t, SetXattr(fd, "user.large", large), SetXattr(fd, "user.empty", nil))
	for i := range 20 {
		do(t, SetXattr(fd, fmt.Sprintf("user.a-name-so-long-that-a-list-of-twenty-needs-more-room-%d", i), nil))
	}
	var now, old Xattrs
	old.byProc.Store(true)
	for _, x := range []*Xattrs{&now, &old} {
		for at, want := range map[At]int{Follow: 22, NoFollow: 0} {
			list, err := x.List(dir, "link", at)
			if err != nil || len(list) != want {
				t.Errorf("link by %#x: %d names, %v", at, len(list), err)
			}
		}
		list, err := x.List(Here, filepath.Join(path, "file"), NoFollow)
		if err != nil || !slices.Contains(list, "user.large") {
			t.Errorf("by path: %q, %v", list, err)
		}
		if v, err := x.Get(dir, "file", NoFollow, "user.large"); err != nil || !bytes.Equal(v, large) {
			t.Errorf("%d bytes, %v", len(v), err)
		}
		if v, err := x.Get(dir, "link", Follow, "user.empty"); err != nil || len(v) != 0 {
			t.Errorf("%q, %v", v, err)
		}
		if _, err := x.Get(dir, "file", NoFollow, "user.none"); !errors.Is(err, syscall.ENODATA) {
			t.Error(err)
		}
		if _, err := x.Get(dir, "none", NoFollow, "user.none"); !errors.Is(err, syscall.ENOENT) {
			t.Error(err)
		}
	}
	list, err := ListXattrs(fd)
	if err != nil || len(list) != 22 {
		t.Errorf("%d names, %v", len(list), err)
	}
	do(t, RemoveXattr(fd, "user.large"))
	if list, _ := ListXattrs(fd); len(list) != 21 {
		t.Errorf("%d names", len(list))
	}
}

func TestUnnamedFileGetsAName(t *testing.T) {
	path := t.TempDir()
	dir := open(t, Here, path, Read|Directory)
	fd := open(t, dir, ".", Write|Unnamed)
	if _, err := WriteAt(fd, []byte("content"), 3); err != nil {
		t.Fatal(err)
	}
	do(t, Link(fd, dir, "name"), SyncData(fd))
	if err := Link(fd, dir, "name"); !errors.Is(err, syscall.EEXIST) {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(path, "name")); err != nil || string(b) != "\x00\x00\x00content" {
		t.Errorf("%q, %v", b, err)
	}
	do(t, os.WriteFile(filepath.Join(path, "other"), nil, 0o600))
	if err := Rename(dir, "other", "name"); !errors.Is(err, syscall.EEXIST) {
		t.Error(err)
	}
	do(t, Replace(dir, "other", "name"), Rename(dir, "name", "last"), Remove(dir, "last"))
	if err := Remove(dir, "last"); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
}

// TestPlace sets attributes of what cannot be opened, and only of that.
func TestPlace(t *testing.T) {
	path := t.TempDir()
	dir := open(t, Here, path, Read|Directory)
	do(t, os.WriteFile(filepath.Join(path, "file"), nil, 0o600), MakeSymlink(dir, "link", "file"), MakeNode(dir, "fifo", FIFO, 0))
	at := time.Unix(-5, 7)
	for _, name := range []string{"link", "fifo"} {
		fd := open(t, dir, name, Place|Final)
		do(t, SetModified(fd, at), SetOwner(fd, os.Geteuid(), os.Getegid()))
		info, err := Stat(fd, "", Itself)
		if err != nil || !info.Modified.Equal(at) {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
		if name == "fifo" {
			do(t, SetPlaceMode(fd, 0o751))
		}
		if target, err := Readlink(fd, ""); name == "link" && (err != nil || target != "file") {
			t.Errorf("target %q, %v", target, err)
		}
	}
	fifo, _ := Stat(dir, "fifo", NoFollow)
	file, _ := Stat(dir, "file", NoFollow)
	if fifo.Mode != 0o751 || file.Mode != 0o600 || file.Modified.Equal(at) {
		t.Errorf("fifo %+v, file %+v", fifo, file)
	}
	if _, err := Open(dir, "link", Read|Final); !errors.Is(err, syscall.ELOOP) {
		t.Error(err)
	}
}

func TestLock(t *testing.T) {
	path := t.TempDir()
	a, b := open(t, Here, path, Read|Directory), open(t, Here, path, Read|Directory)
	do(t, Lock(a), Lock(a))
	if err := Lock(b); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Error(err)
	}
}
