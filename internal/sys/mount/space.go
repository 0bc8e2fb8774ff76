package mount

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// A Space is a private mount namespace. One thread of this process lives in
// it, and in it are a small memory file system and what is attached: the
// host's mounts are not, so that a Space never keeps one of them busy. All
// other threads reach it through descriptors; other processes through
// /proc/PID/fd/N of this one. When the process ends, even by kill -9, so does
// the Space with all its mounts. Its methods may be called from several
// goroutines.
type Space struct {
	root     *os.File
	calls    chan func()
	quit     chan struct{} // closed by Close
	ended    chan struct{} // closed when everything is detached
	once     sync.Once
	attached []*os.File // used in the thread only
}

// NewSpace makes an empty Space.
func NewSpace() (*Space, error) {
	s := &Space{calls: make(chan func()), quit: make(chan struct{}), ended: make(chan struct{})}
	ready := make(chan error)
	go s.live(ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return s, nil
}

// live is the thread of a Space. It ends with its goroutine, since that never
// gives it back, and the namespace with it.
func (s *Space) live(ready chan<- error) {
	runtime.LockOSThread()
	// The main thread cannot end before the process, and what the process
	// shows in /proc/PID/mountinfo is its mounts: keep it busy with this
	// goroutine until another one has found a thread.
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		found := make(chan error)
		go s.live(found)
		ready <- <-found
		return
	}
	root, err := enter()
	if err != nil {
		ready <- err
		return
	}
	s.root = root
	ready <- nil
	defer close(s.ended)
	for {
		select {
		case call := <-s.calls:
			call()
		case <-s.quit:
			for i := len(s.attached) - 1; i >= 0; i-- {
				_ = detach(s.attached[i]) // what it cannot end, the thread's end does
			}
			return
		}
	}
}

// enter leaves the host's mounts for a new namespace that has only an empty
// memory file system, and returns its root.
func enter() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return nil, failed("unshare", "mount namespace", err)
	}
	out := leaveChroot()
	if out != nil && !errors.Is(out, unix.EPERM) { // else it may be none
		return nil, out
	}
	// From here on nothing that happens may reach the host, and nothing of
	// the host comes here.
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == unix.EINVAL && out != nil { // "/" is not where something is mounted: this is a chroot
		return nil, out
	}
	if err != nil {
		return nil, failed("mount private", "/", err)
	}
	root, err := Open("tmpfs", []Option{{"size", "1m"}, {"mode", "0700"}}, NoDevices|NoSetUID|NoExecute)
	if err != nil {
		return nil, err
	}
	if err := leave(root); err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// leaveChroot makes the root of the thread's namespace that of the thread,
// which is what entering a namespace does (setns(2)). It is not asked before whether
// there is one: a chroot to where something is mounted looks like any other root.
func leaveChroot() error {
	const own = "/proc/thread-self/ns/mnt"
	fd, err := unix.Open(own, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("in a chroot, open %s: %w", own, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("in a chroot, setns: %w", err)
	}
	return nil
}

// leave makes root the root of the namespace and drops everything else in it.
// The pair of dots puts the old root on top of the new one, from where it is
// detached (pivot_root(2)).
func leave(root *os.File) error {
	fd := int(root.Fd())
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return failed("move_mount", "/", err)
	}
	if err := unix.Fchdir(fd); err != nil {
		return failed("fchdir", "/", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return failed("pivot_root", "/", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return failed("umount", "/", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return failed("chdir", "/", err)
	}
	return nil
}

// Root is the Space's own directory. What is in it is mounted nowhere else.
func (s *Space) Root() *os.File { return s.root }

// Attach mounts on the directory at what Open returned. It stays until it is
// detached or the Space is closed.
func (s *Space) Attach(m, at *os.File) error {
	return s.do(func() error {
		if err := attach(m, at); err != nil {
			return err
		}
		s.attached = append(s.attached, m)
		return nil
	})
}

// Graft mounts the directory from, which must lie in the Space, on the
// directory at, and returns the root of the new mount.
func (s *Space) Graft(from, at *os.File, flags Flags) (m *os.File, err error) {
	err = s.do(func() error {
		fd, err := unix.OpenTree(int(from.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
		if err != nil {
			return failed("open_tree", from.Name(), err)
		}
		clone := os.NewFile(uintptr(fd), at.Name())
		defer clone.Close()
		if err := attach(clone, at); err != nil {
			return err
		}
		if err = restrict(clone, flags); err == nil {
			m, err = OpenBelow(clone, ".")
		}
		if err != nil {
			_ = detach(clone)
		}
		return err
	})
	return m, err
}

// Restrict changes the flags of the mount whose root is m.
func (s *Space) Restrict(m *os.File, flags Flags) error {
	return s.do(func() error { return restrict(m, flags) })
}

// Detach takes the mount whose root is m, and all on it, out of the Space.
// Files opened in it can still be read.
func (s *Space) Detach(m *os.File) error {
	return s.do(func() error { return detach(m) })
}

// Vacate makes m the descriptor of a directory that is removed. Its number stays, so
// whoever comes by that finds nothing there, and what it was of is not in use by it.
func (s *Space) Vacate(m *os.File) error {
	const name = "vacated"
	return s.do(func() error {
		if err := unix.Mkdirat(int(s.root.Fd()), name, 0o500); err != nil && !errors.Is(err, unix.EEXIST) {
			return failed("mkdirat", name, err)
		}
		dir, err := OpenBelow(s.root, name)
		if err != nil {
			return err
		}
		defer dir.Close()
		if err := unix.Unlinkat(int(s.root.Fd()), name, unix.AT_REMOVEDIR); err != nil {
			return failed("unlinkat", name, err)
		}
		err = unix.Dup3(int(dir.Fd()), int(m.Fd()), unix.O_CLOEXEC)
		runtime.KeepAlive(m)
		if err != nil {
			return failed("dup3", m.Name(), err)
		}
		return nil
	})
}

// Close ends the Space. Files opened in it can still be read. It may be called
// twice.
func (s *Space) Close() error {
	s.once.Do(func() {
		close(s.quit)
		<-s.ended
		s.root.Close()
	})
	return nil
}

// do runs f in the thread of the Space.
func (s *Space) do(f func() error) error {
	done := make(chan error)
	select {
	case s.calls <- func() { done <- f() }:
		return <-done
	case <-s.quit:
		return failed("use", "mount namespace", os.ErrClosed)
	}
}

// The functions below run in the thread of a Space: the kernel allows them in
// the caller's own namespace only.

func attach(m, at *os.File) error {
	err := unix.MoveMount(int(m.Fd()), "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return failed("move_mount", at.Name(), err)
	}
	return nil
}

// restrict uses the old call, since mount_setattr came with Linux 5.12 only.
func restrict(m *os.File, flags Flags) error {
	return in(m, func() error {
		if err := unix.Mount("", ".", "", unix.MS_REMOUNT|unix.MS_BIND|flags.old(), ""); err != nil {
			return failed("mount remount", m.Name(), err)
		}
		return nil
	})
}

func detach(m *os.File) error {
	return in(m, func() error {
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return failed("umount", m.Name(), err)
		}
		return nil
	})
}

// in runs f with m as the working directory of the thread.
func in(m *os.File, f func() error) error {
	if err := unix.Fchdir(int(m.Fd())); err != nil {
		return failed("fchdir", m.Name(), err)
	}
	defer func() { _ = unix.Chdir("/") }()
	return f()
}
