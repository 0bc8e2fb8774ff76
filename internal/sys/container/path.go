package container

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Path returns the resolved path by which we see what path is to a process. It
// is looked for on the mounts that we have of the same file system, and is the
// same file. Of an overlay it is the upper directory that shows it, where all
// that was ever changed lies: the merged one is nobody's disk. Where there is
// none the error wraps ErrUnseen, and says what the file lies on.
func Path(pid int, path string) (string, error) {
	fd, theirs, err := find(pid, path)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return seen(pid, fd, theirs)
}

// Folder is the same for the directory that a process works in.
func Folder(pid int) (string, error) {
	cwd := procPath(pid, "cwd")
	fd, err := unix.Open(cwd, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", failed("open", cwd, err)
	}
	defer unix.Close(fd)
	theirs, err := os.Readlink(cwd)
	if err != nil {
		return "", err
	}
	return seen(pid, fd, theirs)
}

func seen(pid, fd int, theirs string) (string, error) {
	if same(fd, theirs) {
		return theirs, nil
	}
	m, rel, err := mountOf(pid, fd, theirs)
	if err != nil {
		return "", err
	}
	if upper, ok := m.upper(); ok && m.fsType == "overlay" {
		at, err := filepath.EvalSymlinks(filepath.Join(upper, m.root, rel))
		if err == nil && filepath.IsAbs(upper) && alike(fd, at) {
			return at, nil
		}
	} else {
		ours, err := mounts("/proc/thread-self/mountinfo")
		if err != nil {
			return "", err
		}
		for _, o := range slices.Backward(ours) {
			if at, ok := o.shows(m, rel); ok && same(fd, at) {
				return at, nil
			}
		}
	}
	return "", &fs.PathError{Op: "find", Path: theirs, Err: fmt.Errorf("%w: it lies on %s (%s)", ErrUnseen, m.fsType, m.source)}
}

// find opens what path is to a process, and tells the path without links.
func find(pid int, path string) (fd int, resolved string, err error) {
	root, err := unix.Open(procPath(pid, "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", failed("open", procPath(pid, "root"), err)
	}
	defer unix.Close(root)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err = unix.Openat2(root, path, &how)
		if err != unix.EINTR && err != unix.EAGAIN { // renamed meanwhile (openat2(2))
			break
		}
	}
	if err != nil {
		return -1, "", failed("openat2", path, err)
	}
	if resolved, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil {
		unix.Close(fd)
		return -1, "", err
	}
	return fd, resolved, nil
}

// same tells whether a path of ours leads to the file itself.
func same(fd int, path string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(fd, &a) == nil && unix.Stat(path, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// alike tells whether a path of ours leads to the file that an overlay shows, to
// which it gives a number of its own: all else it hands on (ovl_getattr). The
// name of an upper directory is only what it was called where it was mounted,
// but nobody makes a file whose status changed at an instant of his choice.
func alike(fd int, path string) bool {
	const all = unix.STATX_BASIC_STATS
	for range 5 { // it may be changed between the two looks
		var a, b unix.Statx_t
		if unix.Statx(fd, "", unix.AT_EMPTY_PATH, all, &a) != nil || unix.Statx(unix.AT_FDCWD, path, 0, all, &b) != nil {
			return false
		}
		if a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid && a.Size == b.Size && a.Mtime == b.Mtime && a.Ctime == b.Ctime {
			return true
		}
	}
	return false
}

// mountOf returns the mount of a process that a file lies on, and the path from
// its root.
func mountOf(pid, fd int, theirs string) (m mount, rel string, err error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID|unix.STATX_TYPE, &st); err != nil {
		return m, "", failed("statx", "", err)
	}
	all, err := mounts(procPath(pid, "mountinfo"))
	if err != nil {
		return m, "", err
	}
	i := slices.IndexFunc(all, func(m mount) bool { return m.id == fmt.Sprint(st.Mnt_id) })
	if i < 0 {
		return m, "", &fs.PathError{Op: "find", Path: procPath(pid, "mountinfo"), Err: fs.ErrNotExist}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR || st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		rel, err = fromRoot(fd)
		return all[i], rel, err
	}
	dir, above, err := find(pid, filepath.Dir(theirs)) // no way leads up from a file
	if err != nil {
		return m, "", err
	}
	defer unix.Close(dir)
	if theirs != filepath.Join(above, filepath.Base(theirs)) {
		return m, "", &fs.PathError{Op: "find", Path: theirs, Err: fs.ErrNotExist}
	}
	rel, err = fromRoot(dir)
	return all[i], filepath.Join(rel, filepath.Base(theirs)), err
}

// fromRoot is the path of a file from the root of its mount: as many names as
// there are steps upwards. The names are the end of what the kernel shows, which
// may begin anywhere.
func fromRoot(fd int) (string, error) {
	shown, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	names := strings.Split(strings.Trim(shown, "/"), "/")
	at, err := unix.Dup(fd)
	if err != nil {
		return "", failed("dup", shown, err)
	}
	defer func() { unix.Close(at) }()
	for n := 0; n <= len(names); n++ {
		var st unix.Statx_t
		if err := unix.Statx(at, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE, &st); err != nil {
			return "", failed("statx", shown, err)
		}
		if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			return strings.Join(names[len(names)-n:], "/"), nil
		}
		up, err := unix.Openat(at, "..", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", failed("openat", shown+"/..", err)
		}
		unix.Close(at)
		at = up
	}
	return "", failed("find", shown, fs.ErrNotExist)
}

// A mount is a line of mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	id, device, root, point string
	fsType, source          string
	super                   []string
}

func mounts(path string) (all []mount, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 3 {
			return nil, failed("read", path, unix.EBADMSG)
		}
		all = append(all, mount{
			id: f[0], device: f[2], root: unescape.Replace(f[3]), point: unescape.Replace(f[4]),
			fsType: g[0], source: unescape.Replace(g[1]), super: strings.Split(g[2], ","),
		})
	}
	return all, nil
}

// unescape undoes what the kernel does to paths there.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#")

// upper is the upper directory of an overlay.
func (m mount) upper() (string, bool) {
	for _, o := range m.super {
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
			return unescape.Replace(dir), true
		}
	}
	return "", false
}

// shows tells where one of our mounts would show what lies at rel on another
// mount of the same file system.
func (m mount) shows(of mount, rel string) (string, bool) {
	if m.device != of.device {
		return "", false
	}
	from, err := filepath.Rel(m.root, filepath.Join(of.root, rel))
	if err != nil || from == ".." || strings.HasPrefix(from, "../") {
		return "", false
	}
	return filepath.Join(m.point, from), true
}
