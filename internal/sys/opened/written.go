package opened

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Written tells whether the file of fd, which is open for reading, is open for
// writing or mapped so that it can be written to, by anybody: then, and only then,
// the kernel refuses a lease for reading (check_conflicting_open() in
// fs/locks.c). The lease is given back at once; who opens the file for writing in
// this microsecond waits for so long, or with O_NONBLOCK fails with EWOULDBLOCK.
// It fails where there are no leases: with EINVAL on file systems of other hosts,
// with EACCES for those who neither own the file nor have CAP_LEASE.
func Written(fd int) (bool, error) {
	err := Lend(fd)
	if errors.Is(err, unix.EAGAIN) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, GiveBack(fd)
}

// Lend takes a lease for reading on the file of fd: until it is given back, who
// opens the file for writing, or truncates it, waits. This process gets a SIGIO
// then, and must give the lease back. It fails with EAGAIN where the file is open
// for writing.
func Lend(fd int) error { return lease(fd, unix.F_RDLCK) }

// GiveBack gives a lease back; where there is none any more it does nothing.
func GiveBack(fd int) error {
	err := lease(fd, unix.F_UNLCK)
	if errors.Is(err, unix.EAGAIN) {
		return nil // there is none: the kernel has taken it away
	}
	return err
}

func lease(fd, kind int) error {
	for {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, kind)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return failed("fcntl", err)
		}
		return nil
	}
}

// Wanted tells whether somebody waits for a lease to be given back, or has taken
// it away.
func Wanted(fd int) bool {
	kind, err := unix.FcntlInt(uintptr(fd), unix.F_GETLEASE, 0)
	return err != nil || kind != unix.F_RDLCK
}

// Locked tells whether somebody has locked a part of the file of fd for writing,
// in the ways of fcntl(2).
func Locked(fd int) (bool, error) {
	l := unix.Flock_t{Type: unix.F_RDLCK}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &l); err != nil {
		return false, failed("fcntl", err)
	}
	return l.Type == unix.F_WRLCK, nil
}
