package blockdev

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// ErrUnsettled says that the mounts changed as often as they were read.
var ErrUnsettled = errors.New("mounts kept changing while they were read")

// ReadMounts reads a mountinfo file until nothing was mounted or unmounted
// meanwhile. The kernel hands it out in pieces of a page and lets mounts
// change between two of them, so that an entry may be missing or doubled; a
// change shows as POLLPRI and POLLERR on the descriptor
// (proc_pid_mountinfo(5)). With ErrUnsettled comes what was read last.
func ReadMounts(path string) ([]byte, error) {
	// Not os.Open: the kernel reports each change once, and Go's own poller,
	// which would watch the descriptor too, could be the one to see it.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	const tries = 20
	var data []byte
	for range tries {
		if data, err = readFrom(fd, data[:0]); err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		changed, err := mountsChanged(fd)
		if err != nil {
			return nil, &os.PathError{Op: "poll", Path: path, Err: err}
		}
		if !changed {
			return data, nil
		}
	}
	return data, ErrUnsettled
}

// readFrom reads a file from its beginning into buf.
func readFrom(fd int, buf []byte) ([]byte, error) {
	for {
		if cap(buf)-len(buf) < 4096 {
			buf = append(make([]byte, 0, 2*cap(buf)+64<<10), buf...)
		}
		n, err := unix.Pread(fd, buf[len(buf):cap(buf)], int64(len(buf)))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return buf, err
		}
		buf = buf[:len(buf)+n]
	}
}

// mountsChanged reports whether mounts changed since it was last called for
// this descriptor, or since that was opened.
func mountsChanged(fd int) (bool, error) {
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
		_, err := unix.Poll(p, 0)
		if err == unix.EINTR {
			continue
		}
		return p[0].Revents&(unix.POLLPRI|unix.POLLERR) != 0, err
	}
}
