package tree

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
)

const (
	setLease  = 1024 // F_SETLEASE of fcntl(2)
	writeLock = 1    // F_WRLCK
	unlock    = 2    // F_UNLCK
)

// lease takes a lease on a file, as a file server does for its clients, that
// is given up after a while, or when the test ends.
func lease(t *testing.T, path string, after time.Duration) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), setLease, writeLock); errno != 0 {
		t.Fatal("no lease: ", errno)
	}
	done := make(chan struct{})
	timer := time.AfterFunc(after, func() { f.Close(); close(done) })
	t.Cleanup(func() {
		if timer.Stop() {
			f.Close()
			return
		}
		<-done
	})
}

// TestLeases: who gives a lease up is waited for, and who does not costs a
// second, not 45.
func TestLeases(t *testing.T) {
	root := place(t, t.TempDir(), "given-up", "held")
	if err := os.WriteFile(filepath.Join(root, "empty"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	n, err := Open(Source{Path: "/live", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	lease(t, filepath.Join(root, "given-up"), 60*time.Millisecond)
	if got := readAll(t, n.Dir, "given-up"); got != "given-up" {
		t.Errorf("read %q", got)
	}
	for name, code := range map[string]problem.Code{"held": problem.FileUnreadable, "empty": problem.AttributeUnread} {
		lease(t, filepath.Join(root, name), time.Hour)
		e, err := n.Dir.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err = n.Dir.Complete(&e); err == nil {
			_, err = n.Dir.OpenFile(e)
		}
		wantCode(t, err, code)
		if took := time.Since(start); took > 5*time.Second || !errors.Is(err, errLeased) {
			t.Errorf("%s: %v after %v", name, err, took)
		}
	}
}

// TestReplacedBeforeOpening: what is not the file that was seen is not even
// opened. A process that waits for a reader of a FIFO goes on waiting.
func TestReplacedBeforeOpening(t *testing.T) {
	scratch.NeedRoot(t)
	root := place(t, t.TempDir(), "x", "other")
	path := filepath.Join(root, "x")
	n, err := Open(Source{Path: "/live", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	e, err := n.Dir.Stat("x")
	if err != nil {
		t.Fatal(err)
	}
	// 240 to 254 are for experiments: no driver, so that opening says ENXIO.
	for name, replace := range map[string]func() error{
		"fifo":      func() error { return syscall.Mkfifo(path, 0o600) },
		"socket":    func() error { return syscall.Mknod(path, syscall.S_IFSOCK|0o600, 0) },
		"device":    func() error { return syscall.Mknod(path, syscall.S_IFCHR|0o600, 253<<8) },
		"link":      func() error { return os.Symlink("other", path) },
		"directory": func() error { return os.Mkdir(path, 0o755) },
		"file":      func() error { return os.Link(filepath.Join(root, "other"), path) },
	} {
		if err := errors.Join(os.Remove(path), replace()); err != nil {
			t.Fatal(err)
		}
		woken := make(chan struct{})
		if name == "fifo" {
			go func() {
				defer close(woken)
				if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
					f.Close()
				}
			}()
			time.Sleep(50 * time.Millisecond)
		}
		done := make(chan error, 1)
		go func() {
			c, err := n.Dir.OpenFile(e)
			if err == nil {
				c.Close()
			}
			done <- err
		}()
		select {
		case err := <-done:
			wantCode(t, err, problem.FileChanged)
			if !errors.Is(err, errOtherFile) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: opening it waits for ever", name)
		}
		if name == "fifo" {
			select {
			case <-woken:
				t.Error("who waited for a reader of the FIFO was woken")
			case <-time.After(100 * time.Millisecond):
				f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
				if err != nil {
					t.Fatal(err)
				}
				<-woken
				f.Close()
			}
		}
	}
}

// TestErrorTexts: one line, and the path once.
func TestErrorTexts(t *testing.T) {
	at := livePath{name: "/live/file"}
	opened := &fs.PathError{Op: "openat", Path: "file", Err: syscall.EACCES}
	for _, c := range []struct {
		err  error
		want string
	}{
		{unread(at, opened), "/live/file: openat: permission denied"},
		{unopened(at, opened), "/live/file: openat: permission denied"},
		{unwritten("/to/file", opened), "/to/file: openat: permission denied"},
		{unread(at, join(opened, nil)), "/live/file: openat: permission denied"},
		{join(errors.New("a"), nil, errors.New("b")), "a; b"},
	} {
		if c.err.Error() != c.want {
			t.Errorf("%q, want %q", c.err, c.want)
		}
	}
	if join(nil, nil) != nil {
		t.Error("nothing joined is something")
	}
	_, err := OpenTarget(filepath.Join(place(t, t.TempDir(), "file"), "file/below/it"))
	if strings.Count(err.Error(), "/file") != 1 {
		t.Errorf("%q", err)
	}
	_, err = Open(Source{Path: "/live", Root: "/nowhere/here"})
	if err == nil || err.Error() != "/live: statx: no such file or directory" {
		t.Errorf("%q", err)
	}
}
