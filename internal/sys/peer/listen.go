package peer

import (
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Listen listens at a Unix socket as the given user, whom those that connect then
// see: SO_PEERCRED has the effective user of the thread that called listen(2). The
// socket itself is ours. The tests of who is told what are made with it.
func Listen(path string, uid int) (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, failed(path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // the listener has a duplicate
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, failed(path, err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this function
		err := setEffective(uid)
		if err == nil {
			err = unix.Listen(fd, 16)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return nil, failed(path, err)
	}
	return net.FileListener(f)
}
