package tree

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/file"
)

// lefts collects what Source.Left is told.
type lefts struct {
	mu   sync.Mutex
	list []string
}

func (l *lefts) add(path, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, path+": "+reason)
}

func (l *lefts) want(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(l.list)
	if !slices.Equal(l.list, want) {
		t.Errorf("left out:\n%q\nwant\n%q", l.list, want)
	}
}

// listTree returns every live path below d with type and volume.
func listTree(t *testing.T, d *Dir) []string {
	t.Helper()
	var list []string
	names, err := d.Names()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		e, err := d.Stat(n.Name)
		if err != nil {
			list = append(list, joined(d.Path(), n.Name)+" "+string(problem.CodeOf(err)))
			continue
		}
		if err := d.Complete(&e); err != nil {
			t.Error(err)
		}
		if n.IsDir != (e.Type == Directory) || e.Name != n.Name {
			t.Errorf("name %+v is entry %+v", n, e)
		}
		list = append(list, fmt.Sprintf("%s %s", joined(d.Path(), n.Name), e.Type))
		if !n.IsDir {
			continue
		}
		below, err := d.OpenDir(n.Name)
		if err != nil {
			t.Fatal(err)
		}
		if below.Volume() != d.Volume() {
			list = append(list, below.Path()+" in "+below.Volume())
		}
		list = append(list, listTree(t, below)...)
		if err := below.Close(); err != nil {
			t.Error(err)
		}
	}
	return list
}

func wantTree(t *testing.T, source Source, want ...string) {
	t.Helper()
	n, err := Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	if got := listTree(t, n.Dir); !slices.Equal(got, want) {
		t.Errorf("tree:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// place makes files and, with a trailing slash, directories.
func place(t *testing.T, root string, paths ...string) string {
	t.Helper()
	for _, p := range append([]string{"./"}, paths...) {
		full := filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if strings.HasSuffix(p, "/") {
			err = os.MkdirAll(full, 0o755)
		} else {
			err = os.WriteFile(full, []byte(p), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestGraftsShowAtTheirPlace(t *testing.T) {
	root := place(t, t.TempDir(), "a", "mnt/home/hidden", "mnt/file", "mnt/masked", "empty/x", "z/")
	home := place(t, t.TempDir(), "user/doc", "inner/covered")
	inner := place(t, t.TempDir(), "deep")
	var left lefts
	wantTree(t, Source{
		Path: "/live", Root: root, Volume: "v0", Left: left.add,
		Grafts: []Graft{
			{Path: "/live/mnt/home", Root: home, Volume: "v1"},
			{Path: "/live/mnt/home/inner", Root: inner, Volume: "v2"},
			{Path: "/live/mnt/file", Root: filepath.Join(inner, "deep"), Volume: "v2"},
			{Path: "/live/mnt/masked", Volume: "v3"},
			{Path: "/live/empty", Volume: "v4"},
			{Path: "/live/z/not-there", Root: inner, Volume: "v5"},
			{Path: "/live/nor/this", Root: inner, Volume: "v6"},
			{Path: "/elsewhere", Root: home, Volume: "v7"},
		},
	},
		"/live/empty dir",
		"/live/mnt dir",
		"/live/mnt/home dir",
		"/live/mnt/home in v1",
		"/live/mnt/home/inner dir",
		"/live/mnt/home/inner in v2",
		"/live/mnt/home/inner/deep file",
		"/live/mnt/home/user dir",
		"/live/mnt/home/user/doc file",
		"/live/mnt/file file",
		"/live/z dir",
		"/live/z/not-there dir",
		"/live/z/not-there in v5",
		"/live/z/not-there/deep file",
		"/live/a file",
	)
	left.want(t,
		"/live/mnt/masked: something is mounted over this file",
		"/live/nor/this: the directory that leads there is missing",
	)
}

func TestGraftedFileIsRead(t *testing.T) {
	root := place(t, t.TempDir(), "file")
	other := place(t, t.TempDir(), "content of the other")
	n, err := Open(Source{Path: "/", Root: root, Grafts: []Graft{{Path: "/file", Root: filepath.Join(other, "content of the other")}}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if got := readAll(t, n.Dir, "file"); got != "content of the other" {
		t.Errorf("the graft holds %q", got)
	}
}

func readAll(t *testing.T, d *Dir, name string) string {
	t.Helper()
	e, err := d.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.OpenFile(e)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, e.Size)
	if _, err := c.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLeave(t *testing.T) {
	root := place(t, t.TempDir(), "keep/me", "cache/x", "keep/cache/y", "core")
	if err := os.Symlink("x", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	var left lefts
	wantTree(t, Source{
		Path: "/", Root: root, Volume: "v", Left: left.add,
		Leave: func(path string, e *Entry, volume string) string {
			if filepath.Base(path) != e.Name || e.Inode == 0 || volume != "v" {
				t.Errorf("asked about %q, %+v in %q", path, e, volume)
			}
			switch {
			case e.Name == "cache" && e.Type == Directory:
				return "cache"
			case e.Type == Symlink, path == "/core":
				return "unwanted"
			}
			return ""
		},
	}, "/keep dir", "/keep/me file")
	left.want(t, "/cache: cache", "/core: unwanted", "/keep/cache: cache", "/link: unwanted")
}

func TestSingleFileAsRoot(t *testing.T) {
	root := place(t, t.TempDir(), "one")
	if err := os.Symlink("one", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setxattr(filepath.Join(root, "one"), "user.x", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	n, err := Open(Source{Path: "/live/one", Root: filepath.Join(root, "one")})
	if err != nil {
		t.Fatal(err)
	}
	if n.Dir != nil || n.Entry.Type != File || n.Entry.Name != "one" || len(n.Entry.XAttrs) != 1 {
		t.Errorf("node %+v", n)
	}
	c, err := n.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	b := make([]byte, 3)
	if _, err := c.ReadAt(b, 0); err != nil || string(b) != "one" {
		t.Errorf("read %q, %v", b, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	n, err = Open(Source{Path: "/live/link", Root: filepath.Join(root, "link")})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if n.Entry.Type != Symlink || n.Entry.Target != "one" {
		t.Errorf("node %+v", n.Entry)
	}
}

// TestRootByDescriptor reads a source the way snapshots are shown.
func TestRootByDescriptor(t *testing.T) {
	f, err := os.Open(place(t, t.TempDir(), "d/x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	magic := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
	wantTree(t, Source{Path: "/live", Root: magic}, "/live/d dir", "/live/d/x file")
	wantTree(t, Source{Path: "/", Root: magic, Grafts: []Graft{{Path: "/d", Root: magic + "/d"}}}, "/d dir", "/d/x file")
	one, err := os.Open(filepath.Join(f.Name(), "d/x"))
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	n, err := Open(Source{Path: "/live/x", Root: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), one.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if n.Entry.Type != File || n.Entry.Size != 3 {
		t.Errorf("entry %+v", n.Entry)
	}
	link := filepath.Join(f.Name(), "link")
	if err := os.Symlink("its/target", link); err != nil {
		t.Fatal(err)
	}
	fd, err := file.Open(file.Here, link, file.Place|file.Final)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close(fd)
	l, err := Open(Source{Path: "/live/link", Root: fmt.Sprintf("/proc/self/fd/%d", fd)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Entry.Type != Symlink || l.Entry.Target != "its/target" {
		t.Errorf("entry %+v", l.Entry)
	}
}

// TestForeignMountsAreNotEntered: bind mounts and other file systems that are
// not grafted are empty and told about, files too.
func TestForeignMountsAreNotEntered(t *testing.T) {
	scratch.NeedRoot(t)
	root := place(t, t.TempDir(), "bind/covered", "tmpfs/covered", "file", "here/x", "source/y", "magic/")
	mount(t, "--bind", filepath.Join(root, "source"), filepath.Join(root, "bind"))
	mount(t, "-t", "tmpfs", "none", filepath.Join(root, "tmpfs"))
	mount(t, "--bind", filepath.Join(root, "source/y"), filepath.Join(root, "file"))
	place(t, root, "tmpfs/secret")
	run(t, "setfattr", "-n", "trusted.theirs", "-v", "x", filepath.Join(root, "tmpfs"))
	var left lefts
	wantTree(t, Source{Path: "/live", Root: root, Left: left.add},
		"/live/bind dir", "/live/here dir", "/live/here/x file", "/live/magic dir",
		"/live/source dir", "/live/source/y file", "/live/tmpfs dir", "/live/file file-unreadable")
	left.want(t, "/live/bind: "+mountedOver, "/live/tmpfs: "+mountedOver)
	d := openRoot(t, root)
	e, err := d.Stat("tmpfs")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Complete(&e); err != nil || len(e.XAttrs) > 0 {
		t.Errorf("attributes of the other file system: %+v, %v", e, err)
	}
}

// TestNestedSubvolumes: one that is not grafted is told about, on the live
// volume and in the snapshot, where it is an empty directory.
func TestNestedSubvolumes(t *testing.T) {
	v := scratch.New(t, "btrfs", 320*scratch.MiB)
	origin, snap := filepath.Join(v.Dir, "origin"), filepath.Join(v.Dir, "snap")
	run(t, "btrfs", "subvolume", "create", origin)
	run(t, "btrfs", "subvolume", "create", filepath.Join(origin, "nested"))
	place(t, origin, "a/x", "nested/n")
	run(t, "btrfs", "subvolume", "snapshot", "-r", origin, snap)
	for root, reason := range map[string]string{origin: nestedSubvolume, snap: missingSubvolume} {
		var left lefts
		wantTree(t, Source{Path: "/live", Root: root, Left: left.add}, "/live/a dir", "/live/a/x file", "/live/nested dir")
		left.want(t, "/live/nested: "+reason)
	}
	var left lefts
	wantTree(t, Source{
		Path: "/live", Root: snap, Left: left.add,
		Grafts: []Graft{{Path: "/live/nested", Root: filepath.Join(origin, "nested"), Volume: "n"}},
	}, "/live/a dir", "/live/a/x file", "/live/nested dir", "/live/nested in n", "/live/nested/n file")
	left.want(t)
	// So does the live one, at its own place.
	wantTree(t, Source{
		Path: "/live", Root: origin, Volume: "o", Left: left.add,
		Grafts: []Graft{{Path: "/live/nested", Root: filepath.Join(origin, "nested"), Volume: "n"}},
	}, "/live/a dir", "/live/a/x file", "/live/nested dir", "/live/nested in n", "/live/nested/n file")
	left.want(t)
}
