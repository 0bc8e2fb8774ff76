package mount

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// watchTime is how long quit may go unnoticed, in milliseconds.
const watchTime = 200

// changes is how often mounts may change while they are read until that is told.
const changes = 20

// mountinfo is that of this process's namespace.
const mountinfo = "/proc/self/mountinfo"

// A Watch tells when mounts of this process's namespace come and go. It belongs to
// one goroutine.
type Watch struct {
	fd    int
	known map[string]int // the IDs of mounts by their lines in mountinfo
}

// NewWatch begins to look: what changes from now on, Run tells.
func NewWatch() (*Watch, error) {
	// No os.File: Go's runtime would wait on it, too, and the kernel tells a
	// change to the first who asks only (mounts_poll() in fs/proc_namespace.c).
	fd, err := unix.Open(mountinfo, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, failed("open", mountinfo, err)
	}
	w := &Watch{fd: fd}
	if _, err := w.look(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// Close ends the watch.
func (w *Watch) Close() error { return unix.Close(w.fd) }

// A Change is what has become of the mounts since the one before.
type Change struct {
	// Came is false where some have gone, and none is there that was not before. A mount
	// of the same place, ID and options as one that has gone before it is not told from
	// that.
	Came bool

	Left map[int]bool // the IDs of those that there are
}

// Run calls changed whenever a mount has come or gone, until quit is closed.
func (w *Watch) Run(quit <-chan struct{}, changed func(Change)) error {
	for {
		select {
		case <-quit:
			return nil
		default:
		}
		some, err := w.wait(watchTime)
		if err != nil {
			return err
		}
		if !some {
			continue
		}
		c, err := w.change()
		if err != nil {
			return err
		}
		changed(c)
	}
}

// wait waits for a change, so many milliseconds at most.
func (w *Watch) wait(most int) (some bool, err error) {
	// proc_pid_mountinfo(5): a change is told as POLLERR and POLLPRI.
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLPRI}}, most)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, failed("poll", mountinfo, err)
	}
	return n > 0, nil
}

// change looks until nothing changes meanwhile, so that what it has read is not told
// once more.
func (w *Watch) change() (c Change, err error) {
	before := len(w.known)
	came, err := w.look()
	if err != nil {
		return c, err
	}
	c.Came = came || len(w.known) == before // one has gone and come again: the kernel gives IDs anew
	for try := 1; ; try++ {
		more, err := w.wait(0)
		if err != nil {
			return c, err
		}
		if !more {
			break
		}
		if try == changes { // what was read last may lack some
			c.Came = true
			break
		}
		if came, err = w.look(); err != nil {
			return c, err
		}
		c.Came = c.Came || came
	}
	c.Left = map[int]bool{}
	for _, id := range w.known {
		c.Left[id] = true
	}
	return c, nil
}

// look reads what there is, and tells whether something is there that was not. It needs
// no other descriptor, of which there may be none left.
func (w *Watch) look() (came bool, err error) {
	var text strings.Builder
	for buf := make([]byte, 64<<10); ; {
		n, err := unix.Pread(w.fd, buf, int64(text.Len()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, failed("read", mountinfo, err)
		}
		if n == 0 {
			break
		}
		text.Write(buf[:n])
	}
	now := map[string]int{}
	for line := range strings.Lines(text.String()) {
		number, _, _ := strings.Cut(line, " ")
		if now[line], err = strconv.Atoi(number); err != nil {
			return false, failed("parse", mountinfo, err)
		}
		if _, known := w.known[line]; !known {
			came = true
		}
	}
	w.known = now
	return came, nil
}
