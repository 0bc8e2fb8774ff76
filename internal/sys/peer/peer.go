// Package peer tells who is at the other end of a Unix socket, as the kernel
// recorded it when the connection was made (SO_PEERCRED, unix(7)).
package peer

import (
	"net"

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
