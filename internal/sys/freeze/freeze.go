// Package freeze suspends all writes to a mounted file system and lets them go
// on. It knows the two calls (ioctl_fsfreeze), and no word of the product.
//
// What must be known of them (fs/super.c of Linux 6.18, and seen on ext4 and
// XFS): a frozen file system stays frozen when the process that froze it dies;
// anyone with CAP_SYS_ADMIN can thaw it; it can be frozen by one only. Freezing
// first waits for every write call that is under way and then writes what is
// dirty, and cannot be cancelled, not even by SIGKILL. While a file system is
// frozen, who writes to it waits in a way that no signal ends; reads, stat and
// directory listings go on. Closing the last descriptor of a deleted file is a
// write.
package freeze

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// What the calls say, as errors.Is finds it in their errors.
const (
	ErrFrozen      = syscall.EBUSY      // of Freeze: it is frozen already
	ErrUnsupported = syscall.EOPNOTSUPP // of Freeze: the file system cannot be frozen
	ErrNotFrozen   = syscall.EINVAL     // of Thaw: it is not frozen, or not yet
)

// The calls (linux/fs.h).
const (
	fiFreeze = 0xc0045877 // FIFREEZE
	fiThaw   = 0xc0045878 // FITHAW
)

// Freeze suspends writes to the file system that f lies on, when all that are
// under way have ended and everything is on disk.
func Freeze(f *os.File) error { return call("FIFREEZE", fiFreeze, f) }

// Thaw lets writes go on.
func Thaw(f *os.File) error { return call("FITHAW", fiThaw, f) }

// ThawDescriptor is Thaw by a bare descriptor. It allocates nothing and uses
// nothing of the Go runtime but the system call. It returns 0 on success.
func ThawDescriptor(fd int) syscall.Errno { return ioctl(fd, fiThaw) }

// Frozen tells whether the file system that f lies on is frozen. The only way
// to know is to freeze it; one that was not frozen is thawed again at once, if
// nobody else who thaws it was quicker.
func Frozen(f *os.File) (bool, error) {
	switch err := Freeze(f); {
	case errors.Is(err, ErrFrozen):
		return true, nil
	case err != nil:
		return false, err
	}
	if err := Thaw(f); !errors.Is(err, ErrNotFrozen) {
		return false, err
	}
	return false, nil
}

// Sync writes everything to disk that is dirty on the file system that f lies
// on. A Freeze soon after it is quick.
func Sync(f *os.File) error {
	err := unix.Syncfs(int(f.Fd()))
	runtime.KeepAlive(f)
	if err != nil {
		return &fs.PathError{Op: "syncfs", Path: f.Name(), Err: err}
	}
	return nil
}

func call(name string, number uint, f *os.File) error {
	errno := ioctl(int(f.Fd()), number)
	runtime.KeepAlive(f)
	if errno != 0 {
		return &fs.PathError{Op: name, Path: f.Name(), Err: errno}
	}
	return nil
}

func ioctl(fd int, number uint) syscall.Errno {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(number), 0)
		if errno != unix.EINTR {
			return errno
		}
	}
}
