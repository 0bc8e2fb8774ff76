package job

import (
	"errors"
	"os"
	"syscall"
)

// The lock of a log is an open file description lock (fcntl(2), Linux 3.15):
// it ends with the process however that ends, holds between two descriptors of
// one process, and, unlike flock(2), can be asked for without being taken, so
// that whoever lists jobs is never in the way of whoever closes one. The values
// are those of asm-generic/fcntl.h; package syscall has no names for them.
const (
	ofdGetLock  = 36 // F_OFD_GETLK
	ofdSetLock  = 37 // F_OFD_SETLK
	ofdSetLockW = 38 // F_OFD_SETLKW
)

// lock waits for the lock of the log.
func lock(f *os.File) error {
	for {
		err := syscall.FcntlFlock(f.Fd(), ofdSetLockW, wholeFile())
		if err != syscall.EINTR {
			return os.NewSyscallError("lock", err)
		}
	}
}

// tryLock reports whether it got the lock.
func tryLock(f *os.File) (bool, error) {
	err := syscall.FcntlFlock(f.Fd(), ofdSetLock, wholeFile())
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
		return false, nil
	}
	return err == nil, os.NewSyscallError("lock", err)
}

// locked reports whether another descriptor holds the lock, and takes nothing.
func locked(f *os.File) (bool, error) {
	l := wholeFile()
	if err := syscall.FcntlFlock(f.Fd(), ofdGetLock, l); err != nil {
		return false, os.NewSyscallError("ask for the lock", err)
	}
	return l.Type != syscall.F_UNLCK, nil
}

// wholeFile is a write lock from the first byte to whatever the end becomes.
func wholeFile() *syscall.Flock_t {
	return &syscall.Flock_t{Type: syscall.F_WRLCK}
}

// linked reports whether the file still has a name.
func linked(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	return info.Sys().(*syscall.Stat_t).Nlink > 0, nil
}
