package mount

import (
	"errors"

	"golang.org/x/sys/unix"
)

// watchTime is how long quit may go unnoticed, in milliseconds.
const watchTime = 200

// Watch calls changed whenever a mount of this process's namespace has come or
// gone, until quit is closed, and once when it begins to look.
func Watch(quit <-chan struct{}, changed func()) error {
	// No os.File: Go's runtime would wait on it, too, and the kernel tells a
	// change to the first who asks only (mounts_poll() in fs/proc_namespace.c).
	const name = "/proc/self/mountinfo"
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return failed("open", name, err)
	}
	defer unix.Close(fd)
	changed()
	for {
		select {
		case <-quit:
			return nil
		default:
		}
		// proc_pid_mountinfo(5): a change is told as POLLERR and POLLPRI.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, watchTime)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return failed("poll", name, err)
		}
		if n > 0 {
			changed()
		}
	}
}
