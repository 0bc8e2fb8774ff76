package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
}

func memory(t *testing.T) *os.File {
	t.Helper()
	m, err := Open("tmpfs", []Option{{"size", "1m"}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func procPath(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

func mounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func makeDir(t *testing.T, in *os.File, name string) *os.File {
	t.Helper()
	path := filepath.Join(procPath(in), name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := OpenBelow(in, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What is put together in a Space is reached by this process and by others,
// but appears in nobody's tree of paths.
func TestSpace(t *testing.T) {
	needRoot(t)
	before := mounts(t)
	s, err := NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	a := memory(t)
	if err := s.Attach(a, makeDir(t, s.Root(), "a")); err != nil {
		t.Fatal(err)
	}
	part := makeDir(t, a, "part")
	write(t, procPath(part)+"/file", "content")
	hole := makeDir(t, a, "x/hole")
	g, err := s.Graft(part, hole, ReadOnly|NoDevices|NoSetUID|NoExecute)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()

	path := procPath(a) + "/x/hole/file"
	if b, err := os.ReadFile(path); err != nil || string(b) != "content" {
		t.Errorf("read through the graft: %q, %v", b, err)
	}
	if b, err := exec.Command("cat", path).CombinedOutput(); err != nil || string(b) != "content" {
		t.Errorf("another process read through the graft: %q, %v", b, err)
	}
	if err := os.WriteFile(path, nil, 0); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write through a read-only graft: %v", err)
	}
	if now := mounts(t); now != before {
		t.Errorf("the host's mounts changed:\n%s\nwere:\n%s", now, before)
	}

	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.Detach(g); err != nil {
		t.Errorf("detach with a file open: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the graft is still there: %v", err)
	}
	if b := make([]byte, 7); true {
		if _, err := r.Read(b); err != nil || string(b) != "content" {
			t.Errorf("read of a file opened before: %q, %v", b, err)
		}
	}
}

func TestRestrict(t *testing.T) {
	needRoot(t)
	s, err := NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a := memory(t)
	if err := s.Attach(a, makeDir(t, s.Root(), "a")); err != nil {
		t.Fatal(err)
	}
	write(t, procPath(a)+"/file", "")
	if err := s.Restrict(a, ReadOnly); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(procPath(a) + "/file"); !errors.Is(err, syscall.EROFS) {
		t.Errorf("remove: %v", err)
	}
	if ok, err := Writable(a); ok || err != nil {
		t.Errorf("writable: %t, %v", ok, err)
	}
}

// A Space holds none of the host's mounts, or they could not be unmounted, and
// does not pass its own on to the host.
func TestSpaceHoldsNothing(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	s, err := NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	tasks, err := filepath.Glob("/proc/self/task/*/mountinfo")
	if err != nil || len(tasks) == 0 {
		t.Fatal(err)
	}
	private := 0
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that ended
		}
		switch n := strings.Count(string(b), "\n"); {
		case strings.Contains(string(b), dir):
		case n == 1:
			private++
		default:
			t.Errorf("%s has %d mounts:\n%s", path, n, b)
		}
	}
	if private != 1 {
		t.Errorf("%d threads in a private namespace, want 1", private)
	}
	if err := syscall.Unmount(dir, 0); err != nil {
		t.Errorf("a mount of the host is busy: %v", err)
	}
}

// The thread that a Space lives in may not be the main one, whose mounts are
// taken for those of the process.
func TestMainThreadStays(t *testing.T) {
	needRoot(t)
	host, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		s, err := NewSpace()
		if err != nil {
			t.Fatal(err)
		}
		if ns, _ := os.Readlink("/proc/self/ns/mnt"); ns != host {
			t.Fatalf("the main thread is in %s", ns)
		}
		s.Close()
		s.Close()
		if err := s.Detach(s.Root()); !errors.Is(err, os.ErrClosed) {
			t.Fatalf("use after close: %v", err)
		}
	}
	// The threads end with their namespaces.
	for wait := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := 0
		tasks, _ := filepath.Glob("/proc/self/task/*/ns/mnt")
		for _, path := range tasks {
			if ns, err := os.Readlink(path); err == nil && ns != host {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(wait) {
			t.Fatalf("%d threads still in a namespace of their own", left)
		}
	}
}

func TestOpenBelow(t *testing.T) {
	dir := t.TempDir()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := os.MkdirAll(dir+"/a/b", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if f, err := OpenBelow(root, "a/b"); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
	for path, want := range map[string]error{"link/b": syscall.ELOOP, "../x": syscall.EXDEV, "a/../..": syscall.EXDEV, "none": syscall.ENOENT} {
		if f, err := OpenBelow(root, path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
			f.Close()
		}
	}
}

// An error names the call, the object and what the kernel said.
func TestOpenErrors(t *testing.T) {
	needRoot(t)
	_, err := Open("tmpfs", []Option{{"size", "much"}}, 0)
	if !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "fsconfig size=much") {
		t.Errorf("bad option: %v", err)
	}
	if _, err := Open("nosuchfs", nil, 0); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("unknown type: %v", err)
	}
}

// What was open at a number is in use no more, and at its path nothing is found.
func TestVacate(t *testing.T) {
	needRoot(t)
	s, err := NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := memory(t)
	write(t, procPath(m)+"/file", "")
	var was, is syscall.Stat_t
	if err := syscall.Fstat(int(m.Fd()), &was); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a second one is nothing new
		path := procPath(m)
		if err := s.Vacate(m); err != nil {
			t.Fatal(err)
		}
		if path != procPath(m) {
			t.Errorf("%s is %s now", path, procPath(m))
		}
		if _, err := os.Stat(path + "/file"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what it was of still shows: %v", err)
		}
		if err := os.Mkdir(path+"/new", 0o700); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("something can be made there: %v", err)
		}
	}
	if err := syscall.Fstat(int(m.Fd()), &is); err != nil || is.Dev == was.Dev {
		t.Errorf("it is of the same file system still: %v", err)
	}
	if list, err := os.ReadDir(procPath(s.Root())); err != nil || len(list) > 0 {
		t.Errorf("left: %v, %v", list, err)
	}
}
