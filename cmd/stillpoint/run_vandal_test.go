package main

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

	"golang.org/x/sys/unix"
)

// runWrites lets a program try to write in every way, and compares what it, and
// everybody else, sees then with what there was before.
func runWrites(w *world) {
	before := w.sh(listing, w.paths...)
	inside := w.run(0, append([]string{"sh", "-euc", `vandal "$@" >&2; ` + listing, "sh"}, w.paths...)...)
	for what, got := range map[string]string{"the program sees": inside, "afterwards there is": w.sh(listing, w.paths...)} {
		if lines, differ := differences(before, got); differ {
			w.t.Errorf("%s other things than before, these first:\n%s", what, lines)
		}
	}
}

// Each attempt succeeds where it is not refused.
func TestVandal(t *testing.T) {
	for _, a := range attempts {
		path := filepath.Join(t.TempDir(), "f")
		err := os.WriteFile(path, []byte("content"), 0o600)
		d, err2 := os.Lstat(path)
		if err2 == nil && !a.of(fs.FileInfoToDirEntry(d)) {
			path = filepath.Join(filepath.Dir(path), "d")
			err = errors.Join(err, os.Mkdir(path, 0o700))
		}
		if err := errors.Join(err, err2, unix.Setxattr(path, "trusted.note", []byte("x"), 0)); err != nil {
			t.Fatal(err)
		}
		if err := a.do(path); err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
	}
}

// vandal tries to change everything at and below the paths in its arguments,
// whatever it has to do to the mounts before, and says what was not refused.
func vandal() {
	var faults []string
	refused := 0
	try := func(how, prefix string) {
		for _, root := range os.Args[1:] {
			err := filepath.WalkDir(prefix+root, func(path string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				if onTmpfs(path) {
					return fs.SkipDir // live, and said to be so
				}
				for _, a := range attempts {
					if a.of(d) && (a.inside || path != prefix+root) {
						if err := a.do(path); a.refused(err) {
							refused++
						} else {
							faults = append(faults, fmt.Sprintf("%s: %q: %s: %v", how, path, a.name, err))
						}
					}
				}
				return nil
			})
			if err != nil {
				faults = append(faults, err.Error())
			}
		}
	}
	try("as it is", "")
	try("by /proc/self/root", "/proc/self/root")
	for _, m := range mountsOf(os.Args[1:]) {
		_ = unix.Mount("", m, "", unix.MS_REMOUNT|unix.MS_BIND, "") // it may succeed: nothing can be written for that
	}
	try("mounts no more read-only", "")
	for _, m := range mountsOf(os.Args[1:]) {
		_ = unix.Mount("", m, "", unix.MS_REMOUNT, "")
	}
	try("file systems no more read-only", "")
	for _, f := range faults[:min(len(faults), 100)] {
		fmt.Println(f)
	}
	if len(faults) > 0 || refused < 1000 {
		fmt.Println(len(faults), "attempts were not refused, and", refused, "were")
		os.Exit(1)
	}
	os.Exit(0)
}

// mountsOf are the mount points at and below paths, but for those in memory.
func mountsOf(paths []string) (points []string) {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		point := strings.Fields(line)[4]
		if slices.ContainsFunc(paths, func(p string) bool { return point == p || strings.HasPrefix(point, p+"/") }) && !onTmpfs(point) {
			points = append(points, point)
		}
	}
	return points
}

// An attempt is a way to change something.
type attempt struct {
	name   string
	of     func(fs.DirEntry) bool // what can be changed so
	inside bool                   // also the path itself, whose directory is live
	also   []error                // refuse it as well as EROFS and EPERM do
	do     func(path string) error
}

func (a attempt) refused(err error) bool {
	return slices.ContainsFunc(append([]error{unix.EROFS, unix.EPERM}, a.also...), func(e error) bool { return errors.Is(err, e) })
}

func everything(fs.DirEntry) bool  { return true }
func regular(d fs.DirEntry) bool   { return d.Type().IsRegular() }
func folder(d fs.DirEntry) bool    { return d.IsDir() }
func noFolder(d fs.DirEntry) bool  { return !d.IsDir() }
func noLink(d fs.DirEntry) bool    { return d.Type() != fs.ModeSymlink }
func fileOrDir(d fs.DirEntry) bool { return regular(d) || folder(d) }
func in(path, name string) string  { return filepath.Join(path, name) }
func beside(path, add string) string {
	return filepath.Join(filepath.Dir(path), "vandal"+add)
}

var attempts = []attempt{
	{"write", regular, true, nil, vandalWrote(unix.O_WRONLY)},
	{"write and read", regular, true, nil, vandalWrote(unix.O_RDWR)},
	{"append", regular, true, nil, vandalWrote(unix.O_WRONLY | unix.O_APPEND)},
	{"write directly", regular, true, nil, func(path string) error {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_DIRECT, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Munmap(b) }()
		_, err = unix.Pwrite(fd, b, 0)
		return err
	}},
	{"open and truncate", regular, true, nil, vandalWrote(unix.O_WRONLY | unix.O_TRUNC)},
	{"truncate", regular, true, nil, func(path string) error { return unix.Truncate(path, 1) }},
	{"allocate", regular, true, nil, func(path string) error {
		fd, err := unix.Open(path, unix.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Fallocate(fd, 0, 0, 1<<20)
	}},
	{"open again by /proc/self/fd", regular, true, nil, func(path string) error {
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return vandalWrote(unix.O_WRONLY)(fmt.Sprintf("/proc/self/fd/%d", fd))
	}},
	{"open by handle", regular, true, []error{unix.EOPNOTSUPP, unix.ESTALE}, func(path string) error {
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
		if err != nil {
			return err
		}
		dir, err := unix.Open(filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		fd, err := unix.OpenByHandleAt(dir, handle, unix.O_WRONLY)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.Write(fd, []byte("vandal"))
		return err
	}},
	// FUSE asks for more than flags first, which the view does not have.
	{"change flags", fileOrDir, true, []error{unix.ENOTTY}, func(path string) error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0x80) // FS_NOATIME_FL
	}},
	{"change the mode", noLink, true, nil, func(path string) error { return unix.Chmod(path, 0o777) }},
	{"change the owner", everything, true, nil, func(path string) error { return unix.Lchown(path, 1, 1) }},
	{"change times", everything, true, nil, func(path string) error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Sec: 1}, {Sec: 1}}, unix.AT_SYMLINK_NOFOLLOW)
	}},
	{"set an attribute", fileOrDir, true, nil, func(path string) error { return unix.Setxattr(path, "user.vandal", []byte("x"), 0) }},
	{"remove an attribute", everything, true, []error{unix.ENODATA}, func(path string) error { return unix.Lremovexattr(path, "trusted.note") }},
	// Mount points are busy, and lie on another mount than what is beside them.
	{"remove", noFolder, false, []error{unix.EBUSY}, unix.Unlink},
	{"remove a folder", folder, false, []error{unix.EBUSY}, func(path string) error {
		err := unix.Rmdir(path)
		if errors.Is(err, syscall.ENOTEMPTY) {
			err = nil // it would have been
		}
		return err
	}},
	{"rename", everything, false, []error{unix.EBUSY}, func(path string) error { return unix.Rename(path, beside(path, "-moved")) }},
	{"link", noFolder, false, []error{unix.EXDEV}, func(path string) error { return unix.Link(path, beside(path, "-linked")) }},
	{"make a file", folder, true, nil, func(path string) error {
		fd, err := unix.Open(in(path, "vandal-new"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}},
	{"make a file without a name", folder, true, []error{unix.EOPNOTSUPP}, func(path string) error {
		fd, err := unix.Open(path, unix.O_TMPFILE|unix.O_WRONLY, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}},
	{"make a folder", folder, true, nil, func(path string) error { return unix.Mkdir(in(path, "vandal-dir"), 0o700) }},
	{"make a device", folder, true, nil, func(path string) error { return unix.Mknod(in(path, "vandal-null"), unix.S_IFCHR|0o600, 0x103) }},
	{"make a symbolic link", folder, true, nil, func(path string) error { return unix.Symlink("x", in(path, "vandal-link")) }},
}

// vandalWrote opens a file, and writes to it if that was allowed.
func vandalWrote(flags int) func(string) error {
	return func(path string) error {
		fd, err := unix.Open(path, flags, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.Write(fd, []byte("vandal"))
		return err
	}
}
