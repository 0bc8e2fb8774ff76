package fanotify

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// waiters lets those who read a group wait for its events so that an event
// wakes one of them. Who polls the group itself is woken with all others, of
// whom one finds something to read (fanotify wakes everybody in its queue); with
// eight of them that more than doubled what an event cost. A lock around the
// reading would do as well, but for one who is stuck in it.
type waiters struct {
	mu   sync.Mutex
	free []int // descriptors of epoll that nobody waits at
}

// take returns a descriptor to wait at, for events of the group or for wake.
// Those of one group are woken one at a time (epoll_ctl(2), EPOLLEXCLUSIVE), and
// only those at which somebody waits.
func (w *waiters) take(group, wake int) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.free); n > 0 {
		at := w.free[n-1]
		w.free = w.free[:n-1]
		return at, nil
	}
	at, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, failed("epoll_create1", "fanotify", err)
	}
	err = unix.EpollCtl(at, unix.EPOLL_CTL_ADD, group, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE, Fd: int32(group)})
	if err == nil {
		err = unix.EpollCtl(at, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)})
	}
	if err != nil {
		unix.Close(at)
		return -1, failed("epoll_ctl", "fanotify", err)
	}
	return at, nil
}

func (w *waiters) giveBack(at int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.free = append(w.free, at)
}

// close is called when nobody waits any more.
func (w *waiters) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for _, at := range w.free {
		errs = append(errs, unix.Close(at))
	}
	w.free = nil
	return errors.Join(errs...)
}

// wait waits until there is an event or the group is closed.
func (p *Permission) wait() error {
	at, err := p.waiters.take(p.fd, p.wake)
	if err != nil {
		return err
	}
	defer p.waiters.giveBack(at)
	var ready [2]unix.EpollEvent
	n, err := unix.EpollWait(at, ready[:], -1)
	for err == unix.EINTR {
		n, err = unix.EpollWait(at, ready[:], -1)
	}
	if err != nil {
		return failed("epoll_wait", "fanotify", err)
	}
	for _, e := range ready[:n] {
		if e.Fd == int32(p.wake) {
			return os.ErrClosed
		}
	}
	return nil
}
