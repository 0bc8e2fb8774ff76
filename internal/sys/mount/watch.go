package mount

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// watchTime is how long quit may go unnoticed, in milliseconds.
const watchTime = 200

// mountinfo is that of this process's namespace.
const mountinfo = "/proc/self/mountinfo"

// A Watch tells when mounts of this process's namespace come and go. It belongs to
// one goroutine.
type Watch struct {
	fd    int
	known map[string]bool // lines of mountinfo
}

// NewWatch begins to look: what changes from now on, Run tells.
func NewWatch() (*Watch, error) {
	// No os.File: Go's runtime would wait on it, too, and the kernel tells a
	// change to the first who asks only (mounts_poll() in fs/proc_namespace.c).
	fd, err := unix.Open(mountinfo, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, failed("open", mountinfo, err)
	}
	w := &Watch{fd: fd, known: map[string]bool{}}
	if _, err := w.look(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// Close ends the watch.
func (w *Watch) Close() error { return unix.Close(w.fd) }

// Run calls changed whenever a mount has come or gone, until quit is closed. All that
// is known is that some have gone where came is false.
func (w *Watch) Run(quit <-chan struct{}, changed func(came bool)) error {
	for {
		select {
		case <-quit:
			return nil
		default:
		}
		// proc_pid_mountinfo(5): a change is told as POLLERR and POLLPRI.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLPRI}}, watchTime)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return failed("poll", mountinfo, err)
		}
		if n > 0 {
			came, err := w.look()
			if err != nil {
				return err
			}
			changed(came)
		}
	}
}

// look reads what there is. Where nothing is another one, one may have gone and come
// again: the kernel gives numbers anew.
func (w *Watch) look() (came bool, err error) {
	text, err := os.ReadFile(mountinfo)
	if err != nil {
		return false, err
	}
	now := map[string]bool{}
	for line := range bytes.Lines(text) {
		now[string(line)] = true
		came = came || !w.known[string(line)]
	}
	came = came || len(now) == len(w.known)
	w.known = now
	return came, nil
}
