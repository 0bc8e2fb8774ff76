// Package fuse opens connections to the kernel's FUSE module and ends them. A
// connection belongs to a file system that is mounted nowhere: it is reached by
// the descriptor of its root only, and is gone with the process. What is said
// on the connection is the business of others. A failure is the kernel's errno
// in an fs.PathError with the call and the object.
package fuse

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"stillpoint/internal/sys/mount"
)

// Options of a file system.
type Options struct {
	Source  string // what it is of, as df shows it
	Subtype string // the type is "fuse.SUBTYPE"
	MaxRead int    // the longest read, in bytes
}

// Mount makes a read-only file system of the connection fd, which everybody who
// can reach it may use within the permissions of its files. Its options are in
// Documentation/filesystems/fuse.rst.
func Mount(fd int, o Options) (root *os.File, err error) {
	return mount.Open("fuse", []mount.Option{
		{Key: "source", Value: o.Source},
		{Key: "subtype", Value: o.Subtype},
		// Of the superblock, not only of the mount: only then does a read
		// not make the kernel ask for the access time again (fs/fuse/dir.c,
		// fuse_invalidate_atime).
		{Key: "ro"},
		{Key: "fd", Value: strconv.Itoa(fd)},
		{Key: "rootmode", Value: strconv.FormatUint(unix.S_IFDIR, 8)},
		{Key: "user_id", Value: "0"},
		{Key: "group_id", Value: "0"},
		{Key: "max_read", Value: strconv.Itoa(o.MaxRead)},
		{Key: "allow_other"},
		{Key: "default_permissions"},
	}, mount.ReadOnly|mount.NoSetUID|mount.NoDevices)
}

// Open opens a new connection, which Mount makes a file system of. The
// descriptor blocks.
func Open() (int, error) {
	for {
		fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			return fd, nil
		}
		if err != unix.EINTR {
			return -1, failed("open", device, err)
		}
	}
}

const device = "/dev/fuse"

// Number is the number of the file system's connection.
func Number(root *os.File) (uint32, error) {
	dev, err := deviceOf(root)
	return unix.Minor(dev), err
}

func deviceOf(root *os.File) (uint64, error) {
	var st unix.Statx_t
	// A mask of nothing: who serves the file system need not answer.
	err := unix.Statx(int(root.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &st)
	runtime.KeepAlive(root)
	if err != nil {
		return 0, failed("statx", root.Name(), err)
	}
	return unix.Mkdev(st.Dev_major, st.Dev_minor), nil
}

// Abort ends the connection with the number: whoever waits for an answer gets
// an error, and so does everything afterwards. It needs no mount of fusectl.
func Abort(number uint32) error {
	control, err := mount.Open("fusectl", nil, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	name := fmt.Sprintf("%d/abort", number)
	fd, err := unix.Openat(int(control.Fd()), name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	runtime.KeepAlive(control)
	if err != nil {
		return failed("openat", "fusectl/"+name, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("1")); err != nil {
		return failed("write", "fusectl/"+name, err)
	}
	return nil
}

// SetReadAhead sets how many bytes the kernel reads ahead. What the connection
// agrees on can only lower the usual 128 KiB (fs/fuse/inode.c,
// process_init_reply), so it is set where the administrator would.
func SetReadAhead(root *os.File, bytes int) error {
	dev, err := deviceOf(root)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(dev), unix.Minor(dev))
	return os.WriteFile(filepath.Clean(name), []byte(strconv.Itoa(bytes>>10)), 0)
}

// Poll polls the file name in root once. The answer "not implemented" keeps the
// kernel from ever asking again; that must have been before a Go program opens
// a file of a file system that it serves itself: Go's runtime polls what it
// opens in a call that keeps a processor, so that nobody may be left to answer.
func Poll(root *os.File, name string) error {
	fd, err := unix.Openat(int(root.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	runtime.KeepAlive(root)
	if err != nil {
		return failed("openat", name, err)
	}
	defer unix.Close(fd)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	if err != nil && err != unix.EINTR {
		return failed("poll", name, err)
	}
	return nil
}

func failed(call, object string, err error) error {
	return &fs.PathError{Op: call, Path: object, Err: err}
}
