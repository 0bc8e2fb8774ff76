package process

import (
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// End ends the process that a handle stands for, by SIGKILL, and waits until it
// has ended, at most for a time. It tells whether it has.
func End(handle *os.File, wait time.Duration) bool {
	defer runtime.KeepAlive(handle)
	fd := int(handle.Fd())
	_ = Kill(fd)
	for end := time.Now().Add(wait); ; {
		left := max(time.Until(end), 0)
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(left/time.Millisecond)+1)
		if err == nil && n > 0 {
			return true
		}
		if left == 0 {
			return false
		}
	}
}

// MostDescriptors is how many descriptors this process can ever have.
func MostDescriptors() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1 << 20
	}
	return int(min(l.Max, 1<<20))
}
