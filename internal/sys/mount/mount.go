// Package mount makes mounts that nobody else sees: file systems are opened
// without a place in any tree of paths, and a Space is a private mount
// namespace in which they are put together. Both are gone when the process is,
// however it ends. The package uses the mount calls of Linux 5.2 to 5.10 only.
// It knows no file system by name and no word of the product. A failure is the
// kernel's errno in an fs.PathError with the call and the object.
package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Flags restrict what can be done through a mount.
type Flags int

// The flags of a mount, whatever its file system allows.
const (
	ReadOnly  Flags = 1 << iota
	NoDevices       // device files are seen but cannot be opened
	NoSetUID        // set-user-id bits are seen but have no effect
	NoExecute
	NoAtime // reading leaves no trace
)

// An Option is one of a file system: a word alone, or a key with a value.
type Option struct{ Key, Value string }

// Open mounts a file system without attaching it anywhere: it can be reached
// through the returned descriptor only, with OpenBelow, or attached in a Space.
// Unless attached, it is unmounted when the descriptor is closed, as soon as
// no file of it is open.
func Open(fsType string, options []Option, flags Flags) (*os.File, error) {
	ctx, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, failed("fsopen", fsType, err)
	}
	defer unix.Close(ctx)
	source := fsType
	for _, o := range options {
		if o.Key == "source" {
			source = o.Value
		}
		if o.Value == "" {
			err = unix.FsconfigSetFlag(ctx, o.Key)
		} else {
			err = unix.FsconfigSetString(ctx, o.Key, o.Value)
		}
		if err != nil {
			return nil, failed("fsconfig "+o.Key+"="+o.Value, source, explained(ctx, err))
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return nil, failed("fsconfig create", source, explained(ctx, err))
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, flags.attributes())
	if err != nil {
		return nil, failed("fsmount", source, explained(ctx, err))
	}
	return os.NewFile(uintptr(fd), source), nil
}

// attributes are the flags for fsmount(2).
func (f Flags) attributes() int {
	return f.translate(unix.MOUNT_ATTR_RDONLY, unix.MOUNT_ATTR_NODEV, unix.MOUNT_ATTR_NOSUID, unix.MOUNT_ATTR_NOEXEC, unix.MOUNT_ATTR_NOATIME)
}

// old are the flags for mount(2).
func (f Flags) old() uintptr {
	return uintptr(f.translate(unix.MS_RDONLY, unix.MS_NODEV, unix.MS_NOSUID, unix.MS_NOEXEC, unix.MS_NOATIME))
}

func (f Flags) translate(values ...int) int {
	n := 0
	for i, v := range values {
		if f&(1<<i) != 0 {
			n |= v
		}
	}
	return n
}

// explained adds what the kernel wrote into the context of a new mount:
// messages such as "e btrfs: open_ctree failed" (mount_api.rst).
func explained(ctx int, err error) error {
	var why []string
	buf := make([]byte, 4096)
	for len(why) < 8 {
		n, rerr := unix.Read(ctx, buf)
		if rerr != nil || n <= 0 {
			break
		}
		if text, ok := strings.CutPrefix(strings.TrimSpace(string(buf[:n])), "e "); ok {
			why = append(why, text)
		}
	}
	if len(why) == 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(why, "; "))
}

// Writable tells whether the file system that f lies on can be written, also
// where the mount of f cannot tell.
func Writable(f *os.File) (bool, error) {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(f.Fd()), &st)
	runtime.KeepAlive(f)
	if err != nil {
		return false, failed("fstatfs", f.Name(), err)
	}
	return st.Flags&unix.ST_RDONLY == 0, nil
}

// OpenBelow opens dir itself, by ".", or a directory below it: nothing on the
// way may be a symbolic link or lead out of dir, but it may cross mounts.
func OpenBelow(dir *os.File, path string) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOATIME,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), path, &how)
		runtime.KeepAlive(dir)
		// EAGAIN: something was renamed meanwhile (openat2(2)).
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return nil, failed("openat2", path, err)
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

func failed(call, object string, err error) error {
	return &fs.PathError{Op: call, Path: object, Err: err}
}
