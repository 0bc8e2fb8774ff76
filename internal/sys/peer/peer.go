// Package peer tells who is at the other end of a Unix socket, as the kernel
// recorded it when the connection was made (SO_PEERCRED, unix(7)).
package peer

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Of returns the process and the user at the other end. The process may have
// ended since, or passed the connection on.
func Of(c *net.UnixConn) (pid, uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, 0, err
	}
	if cerr != nil {
		return 0, 0, cerr
	}
	return int(cred.Pid), int(cred.Uid), nil
}

// Handle returns a descriptor of the process at the other end, to know and end
// it by (SO_PEERPIDFD, Linux 6.5).
func Handle(c *net.UnixConn) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var handle int
	var herr error
	if err := raw.Control(func(fd uintptr) {
		handle, herr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	}); err != nil {
		return nil, err
	}
	if herr != nil {
		return nil, os.NewSyscallError("getsockopt SO_PEERPIDFD", herr)
	}
	return os.NewFile(uintptr(handle), "process"), nil
}
