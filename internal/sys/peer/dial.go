package peer

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Dial connects to a Unix socket as the given user, whom the other end then
// sees: SO_PEERCRED has the effective user of the thread that connected, at that
// moment. Only that one thread changes, and back again. Root may do this for
// everybody, others for themselves. A listener whose queue is full is asked
// again until the context is over.
//
// A change of the effective user makes a process one that leaves no core dump
// (prctl(2), PR_SET_DUMPABLE).
func Dial(ctx context.Context, path string, uid int) (*net.UnixConn, error) {
	for {
		if err := context.Cause(ctx); err != nil {
			return nil, failed(path, err)
		}
		fd, err := connectAs(path, uid)
		if err == nil {
			return conn(fd, path)
		}
		if err != unix.EAGAIN {
			return nil, failed(path, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// DialFile is Dial for a socket that was opened (O_PATH) before: the user needs
// the right to write to it, and none to get there.
func DialFile(ctx context.Context, socket *os.File, uid int) (*net.UnixConn, error) {
	defer runtime.KeepAlive(socket)
	return Dial(ctx, fmt.Sprintf("/proc/self/fd/%d", socket.Fd()), uid)
}

// connectAs connects on a thread of its own, which ends if it cannot become
// itself again.
func connectAs(path string, uid int) (fd int, err error) {
	if uid == os.Geteuid() {
		return connect(path)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		was := os.Geteuid()
		if err = setEffective(uid); err == nil {
			fd, err = connect(path)
			if setEffective(was) != nil {
				return // a goroutine that ends locked takes its thread with it
			}
		}
		runtime.UnlockOSThread()
	}()
	<-done
	return fd, err
}

// setEffective changes the effective user of this thread alone; what package
// syscall has for it changes all threads.
func setEffective(uid int) error {
	const keep = ^uintptr(0)
	if _, _, errno := unix.Syscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		return errno
	}
	return nil
}

// connect does not wait: connect(2) on such a socket succeeds, fails, or says
// EAGAIN when the listener's queue is full.
func connect(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Listener tells which process listens at a Unix socket: the one that has called
// listen(2). It connects for that, and does not wait.
func Listener(path string) (pid int, err error) {
	fd, err := connect(path)
	if err != nil {
		return 0, failed(path, err)
	}
	defer unix.Close(fd)
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, failed(path, err)
	}
	return int(cred.Pid), nil
}

func conn(fd int, path string) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // the connection has a duplicate
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

func failed(path string, err error) error {
	return &net.OpError{Op: "dial", Net: "unix", Addr: &net.UnixAddr{Name: path, Net: "unix"}, Err: err}
}
