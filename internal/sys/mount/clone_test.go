package mount

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A clone shows what it is of, wherever that is mounted: nowhere, in a Space, or
// on the host; and it outlives that.
func TestClone(t *testing.T) {
	needRoot(t)
	space, err := NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer space.Close()
	nowhere, inSpace, host := memory(t), memory(t), t.TempDir()
	if err := space.Attach(inSpace, makeDir(t, space.Root(), "a")); err != nil {
		t.Fatal(err)
	}
	inner := memory(t)
	write(t, procPath(inner)+"/inner", "")
	if err := space.Attach(inner, makeDir(t, inSpace, "dir/on")); err != nil {
		t.Fatal(err)
	}
	for name, root := range map[string]string{"nowhere": procPath(nowhere), "in a Space": procPath(inSpace), "on the host": host} {
		if err := os.MkdirAll(root+"/dir", 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, root+"/dir/file", name)
		if err := os.Symlink("dir", root+"/link"); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{".", "dir", "dir/file"} {
			m, err := Clone(root, path)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			rest, _ := filepath.Rel(path, "dir/file")
			got, err := os.ReadFile(filepath.Join(procPath(m), rest))
			if err != nil || string(got) != name {
				t.Errorf("%s: %s: %q, %v", name, path, got, err)
			}
			m.Close()
		}
		for path, want := range map[string]error{"link": syscall.ELOOP, "..": syscall.EXDEV, "nosuch": syscall.ENOENT} {
			if m, err := Clone(root, path); !errors.Is(err, want) {
				t.Errorf("%s: %s: %v, %v, want %v", name, path, m, err, want)
			}
		}
	}
	// With what is mounted below.
	m, err := Clone(procPath(inSpace), "dir")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := os.Stat(procPath(m) + "/on/inner"); err != nil {
		t.Error(err)
	}
}

// What is mounted is unmounted, and nothing else.
func TestUnmount(t *testing.T) {
	needRoot(t)
	ns, err := Namespace(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	dir := t.TempDir()
	attach := func() uint64 {
		t.Helper()
		m := memory(t)
		write(t, procPath(m)+"/file", "")
		id, err := ID(m)
		if err == nil {
			err = MakeReadOnly(m)
		}
		if err == nil {
			err = AttachAt(m, dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := attach()
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	second := attach()
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	if err := os.WriteFile(dir+"/new", nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write: %v", err)
	}
	there := func() int { return strings.Count(mounts(t), " "+dir+" ") }
	if err := errors.Join(Unmount(ns, dir, first), Unmount(ns, dir+"/nosuch", second)); err != nil || there() != 2 {
		t.Fatalf("%v, and %d mounts are there: the upper one is another", err, there())
	}
	for i, id := range []uint64{second, first} {
		if err := Unmount(ns, dir, id); err != nil || there() != 1-i {
			t.Fatalf("%v, and %d mounts are there", err, there())
		}
	}
}

// Of a stack of mounts on one place, those that are meant are unmounted, and
// nothing that another one covers.
func TestUnmountStack(t *testing.T) {
	needRoot(t)
	ns, err := Namespace(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	dir := t.TempDir()
	var ids []uint64
	for range 4 {
		m := memory(t)
		id, err := ID(m)
		if err == nil {
			err = AttachAt(m, dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
		ids = append(ids, id)
	}
	for _, c := range []struct {
		unmount []uint64
		left    int
	}{
		{ids[1:3], 4},                 // the one on them is another
		{[]uint64{ids[1], ids[3]}, 3}, // and so is the one between
		{ids[1:3], 1}, {ids[1:3], 1}, {ids, 0},
	} {
		if err := Unmount(ns, dir, c.unmount...); err != nil || strings.Count(mounts(t), " "+dir+" ") != c.left {
			t.Fatalf("unmount %v of %v: %v, and %d mounts are there, want %d", c.unmount, ids, err, strings.Count(mounts(t), " "+dir+" "), c.left)
		}
	}
}

// A change is told within a moment, each time, and whether something came.
func TestWatch(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	mount := func() {
		t.Helper()
		if err := syscall.Mount("none", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	unmount := func() {
		t.Helper()
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
	}
	mount() // before anybody asks
	quit, changed, ended := make(chan struct{}), make(chan bool, 100), make(chan error)
	go func() { ended <- w.Run(quit, func(c Change) { changed <- c.Came }) }()
	seen := func(what string, want bool) {
		t.Helper()
		select {
		case came := <-changed:
			if came != want {
				t.Errorf("%s: something came: %t", what, came)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s was not noticed", what)
		}
	}
	seen("a mount before", true)
	unmount()
	seen("an unmount", false)
	for range 5 {
		mount()
		seen("a mount", true)
		unmount()
		seen("an unmount", false)
	}
	mount()
	unmount()
	mount()
	seen("both", true)
	unmount()
	close(quit)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// A program in a Private sees what is attached there, and the host does not.
func TestPrivate(t *testing.T) {
	needRoot(t)
	p, err := NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	dir := t.TempDir()
	write(t, dir+"/file", "live")
	m := memory(t)
	write(t, procPath(m)+"/file", "attached")
	live, err := p.Clone(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if err := p.Attach(m, dir); err != nil {
		t.Fatal(err)
	}
	var out []byte
	if err := p.Do(func() error { out, err = exec.Command("cat", dir+"/file").Output(); return err }); err != nil || string(out) != "attached" {
		t.Errorf("inside: %q, %v", out, err)
	}
	if got, err := os.ReadFile(dir + "/file"); err != nil || string(got) != "live" {
		t.Errorf("outside: %q, %v", got, err)
	}
	if err := p.Attach(live, dir); err != nil {
		t.Fatal(err)
	}
	if err := p.Do(func() error { out, err = exec.Command("cat", dir+"/file").Output(); return err }); err != nil || string(out) != "live" {
		t.Errorf("inside, with the live files on top: %q, %v", out, err)
	}
	if strings.Contains(mounts(t), dir) {
		t.Error("the host sees it")
	}
}

// Over "/" it is the root of all, with what is attached later.
func TestPrivateRoot(t *testing.T) {
	needRoot(t)
	if os.Getenv("STILLPOINT_TEST_ROOTED") != "" {
		_, err := os.Stat("/etc")
		if b, rerr := os.ReadFile("/sub/file"); rerr != nil || string(b) != "sub" || !os.IsNotExist(err) {
			t.Fatalf("/sub/file: %q, %v; /etc: %v", b, rerr, err)
		}
		return
	}
	p, err := NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	root, err := Open("tmpfs", []Option{{"size", "100m"}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"sub", "lib", "lib64", "tmp"} {
		makeDir(t, root, dir)
	}
	if err := os.WriteFile(procPath(root)+"/test", program, 0o755); err != nil {
		t.Fatal(err)
	}
	sub := memory(t)
	write(t, procPath(sub)+"/file", "sub")
	// A test program may be linked to the C library.
	var libs []*os.File
	for _, dir := range []string{"/lib", "/lib64"} {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			lib, err := p.Clone(real)
			if err != nil {
				t.Fatal(err)
			}
			defer lib.Close()
			libs = append(libs, lib)
		}
	}
	if err := p.Attach(root, "/"); err != nil {
		t.Fatal(err)
	}
	if err := p.Attach(sub, "/sub"); err != nil {
		t.Fatal(err)
	}
	for i, lib := range libs {
		if err := p.Attach(lib, []string{"/lib", "/lib64"}[i]); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("/test", "-test.run=^TestPrivateRoot$", "-test.v")
	c.Env = []string{"STILLPOINT_TEST_ROOTED=1"}
	c.Dir = "/"
	out := &strings.Builder{}
	c.Stdout, c.Stderr = out, out
	c.Stdin = strings.NewReader("") // no /dev/null in there
	if err := p.Do(c.Run); err != nil || !strings.Contains(out.String(), "--- PASS: TestPrivateRoot") {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat("/etc"); err != nil {
		t.Error(err)
	}
}
