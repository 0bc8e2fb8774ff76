package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"stillpoint/internal/sys/thread"
)

// Clone makes another mount of what path leads to below the directory root, and
// of all that is mounted below it. Nothing on the way may be a symbolic link or
// lead out of root. Like that of Open, the mount is attached nowhere.
//
// Where root is "/proc/PID/fd/N", the mount may be one of a namespace that only
// threads of that process live in, or, from Linux 6.15 on, one that is itself
// attached nowhere.
func Clone(root, path string) (*os.File, error) {
	dir, err := openPath(unix.AT_FDCWD, root, 0)
	if err != nil {
		return nil, failed("open", root, err)
	}
	defer unix.Close(dir)
	fd, err := openPath(dir, path, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return nil, failed("openat2", path, err)
	}
	defer unix.Close(fd)
	m, err := clone(fd, path, unix.AT_RECURSIVE)
	if !errors.Is(err, unix.EINVAL) {
		return m, err
	}
	// The kernel clones only what is in the caller's own namespace, or
	// attached nowhere (may_copy_tree() in fs/namespace.c).
	for _, ns := range namespaces(root) {
		if m == nil {
			m, _ = inNamespace(ns, func() (*os.File, error) { return clone(fd, path, unix.AT_RECURSIVE) })
		}
		ns.Close()
	}
	if m == nil {
		return nil, fmt.Errorf("%w (a mount that is attached nowhere can be cloned from Linux 6.15 on)", err)
	}
	return m, nil
}

func openPath(at int, path string, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve}
	for {
		fd, err := unix.Openat2(at, path, &how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		return fd, err
	}
}

func clone(fd int, name string, flags uint) (*os.File, error) {
	m, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|flags)
	if err != nil {
		return nil, failed("open_tree", name, err)
	}
	return os.NewFile(uintptr(m), name), nil
}

// namespaces are those that the threads of a process live in, each once; of the
// process that path names.
func namespaces(path string) []*os.File {
	parts := strings.Split(path, "/")
	if len(parts) < 3 || parts[1] != "proc" {
		return nil
	}
	tasks, err := filepath.Glob(filepath.Join("/proc", parts[2], "task", "*", "ns", "mnt"))
	if err != nil {
		return nil
	}
	seen := map[string]bool{}
	var all []*os.File
	for _, task := range tasks {
		name, err := os.Readlink(task)
		if err != nil || seen[name] {
			continue // it ended
		}
		if f, err := os.Open(task); err == nil {
			seen[name] = true
			all = append(all, f)
		}
	}
	return all
}

// Namespace is the mount namespace of a process.
func Namespace(pid int) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
}

// inNamespace runs f in a thread that has entered a mount namespace.
func inNamespace[T any](ns *os.File, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result)
	go thread.Apart(func() {
		var r result
		if r.err = unix.Unshare(unix.CLONE_FS); r.err != nil {
			r.err = failed("unshare", "fs", r.err)
		} else if r.err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); r.err != nil {
			r.err = failed("setns", ns.Name(), r.err)
		} else {
			r.v, r.err = f()
		}
		done <- r
	})
	r := <-done
	runtime.KeepAlive(ns)
	return r.v, r.err
}

// AttachAt mounts m, which Open or Clone returned, over path in the namespace
// of this process.
func AttachAt(m *os.File, path string) error {
	err := unix.MoveMount(int(m.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	runtime.KeepAlive(m)
	if err != nil {
		return failed("move_mount", path, err)
	}
	return nil
}

// Executable tells whether programs can be executed where path leads.
func Executable(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, failed("statfs", path, err)
	}
	return st.Flags&unix.ST_NOEXEC == 0, nil
}

// MakeExecutable lets programs be executed in a mount that is attached nowhere, and in
// those below it, which Open or whoever made what was cloned has not let.
func MakeExecutable(m *os.File) error {
	err := unix.MountSetattr(int(m.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NOEXEC})
	runtime.KeepAlive(m)
	if err != nil {
		return failed("mount_setattr", m.Name(), err)
	}
	return nil
}

// MakeReadOnly makes a mount read-only that is attached nowhere.
func MakeReadOnly(m *os.File) error {
	err := unix.MountSetattr(int(m.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	runtime.KeepAlive(m)
	if err != nil {
		return failed("mount_setattr", m.Name(), err)
	}
	return nil
}

// ID is the number of the mount that f lies in. No other one gets it as long as
// the machine runs, from Linux 6.8 on.
func ID(f *os.File) (uint64, error) {
	id, err := idOf(int(f.Fd()), f.Name())
	runtime.KeepAlive(f)
	return id, err
}

func idOf(fd int, name string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID|unix.STATX_MNT_ID_UNIQUE, &st)
	if err != nil {
		return 0, failed("statx", name, err)
	}
	return st.Mnt_id, nil
}

// Number is what mountinfo calls the mount that f lies in, as long as it is there.
func Number(f *os.File) (int, error) {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st)
	runtime.KeepAlive(f)
	if err != nil {
		return 0, failed("statx", f.Name(), err)
	}
	return int(st.Mnt_id), nil
}

// Unmount takes the mounts with the IDs, as long as one of them is what path shows
// in the namespace, out of that, each with all that is below its root. Where
// another one shows, nothing more is taken.
func Unmount(ns *os.File, path string, ids ...uint64) error {
	_, err := inNamespace(ns, func() (struct{}, error) {
		for range ids {
			if more, err := unmountOne(path, ids); !more || err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	return err
}

// unmountOne takes away what path shows, if it is one of the mounts.
func unmountOne(path string, ids []uint64) (done bool, err error) {
	fd, err := openPath(unix.AT_FDCWD, path, unix.RESOLVE_NO_SYMLINKS)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) {
		return false, nil
	}
	if err != nil {
		return false, failed("openat2", path, err)
	}
	m := os.NewFile(uintptr(fd), path)
	defer m.Close()
	if now, err := ID(m); err != nil || !slices.Contains(ids, now) {
		return false, err
	}
	return true, detach(m)
}
