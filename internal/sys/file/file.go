// Package file reaches files the way a backup must: by the descriptor of a
// directory and one name, never by a long path, and never through a symbolic
// link. It holds statx, getdents, extended attributes, inode flags, holes,
// unnamed temporary files and the calls that set attributes. A failure is the
// kernel's errno in an fs.PathError with the call and the name. The package
// knows no word of the product.
package file

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// At says how a name is resolved; values can be combined.
type At int

// The ways to resolve a name.
const (
	Follow      At = 0                        // through a symbolic link in the last component
	NoFollow    At = unix.AT_SYMLINK_NOFOLLOW // the link itself
	Itself      At = unix.AT_EMPTY_PATH       // with an empty name: the descriptor's own file
	NoAutomount At = unix.AT_NO_AUTOMOUNT     // do not mount what autofs would mount here
	Cached      At = unix.AT_STATX_DONT_SYNC  // do not ask a server
)

// Here is the directory to which paths are relative that begin nowhere; with
// an absolute path it stands for no directory at all.
const Here = unix.AT_FDCWD

// Mode says how a file is opened. Every descriptor is closed on exec.
type Mode int

// The modes; the flags among them are open(2)'s.
const (
	Read      Mode = unix.O_RDONLY
	Write     Mode = unix.O_RDWR
	Place     Mode = unix.O_PATH // to point at it only: works on every type, also on a symbolic link with Final
	Directory Mode = unix.O_DIRECTORY
	Final     Mode = unix.O_NOFOLLOW // fails with ELOOP on a symbolic link
	Prompt    Mode = unix.O_NONBLOCK // does not wait for the writer of a FIFO, nor for who holds a lease (EAGAIN)
	Quiet     Mode = unix.O_NOATIME  // fails with EPERM on files of others without CAP_FOWNER
	New       Mode = unix.O_CREAT | unix.O_EXCL
	Unnamed   Mode = unix.O_TMPFILE // a new file without a name in the directory name; fails with EOPNOTSUPP where there are none
	Forever   Mode = unix.O_EXCL    // with Unnamed: it can never get a name
)

// Open opens name in the directory dir. New files get the permissions 0600.
func Open(dir int, name string, mode Mode) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, int(mode)|unix.O_CLOEXEC, 0o600)
		if err == nil {
			return fd, nil
		}
		if err != unix.EINTR {
			return -1, failed("openat", name, err)
		}
	}
}

// Reopen opens the very file that place, opened as Place, points at, whatever
// has its name now. It needs /proc.
func Reopen(place int, mode Mode) (int, error) {
	return Open(Here, procPath(place, ""), mode&^Final)
}

// Close closes a descriptor. What close(2) reports about lost writes on
// network file systems is in its error.
func Close(fd int) error {
	// After EINTR the descriptor is closed all the same (close(2), Linux).
	if err := unix.Close(fd); err != nil && err != unix.EINTR {
		return failed("close", "", err)
	}
	return nil
}

func failed(call, name string, err error) error {
	return &fs.PathError{Op: call, Path: name, Err: err}
}

func result(call, name string, err error) error {
	if err == nil {
		return nil
	}
	return failed(call, name, err)
}
