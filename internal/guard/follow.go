package guard

import (
	"syscall"
	"time"
)

// followTime is how long a process that is followed has to act. Together with
// the time in which a heart may stand still it is the longest that anybody
// waits where everything is stopped but the guard.
const followTime = 200 * time.Millisecond

// A follow is the process that is to act after the parent; -1 for none.
type follow struct {
	handle   int           // the process
	disarmed int           // at its end when it has acted
	since    time.Duration // we could not run before, so nor could it, perhaps
}

// to is until when it may act after a parent that was dead by then.
func (f follow) to(dead time.Duration) time.Duration { return max(dead, f.since) + followTime }

// followed takes the two descriptors that came with a message.
func (w *watch) followed(n int) syscall.Errno {
	fds, errno := w.taken(n, 2)
	if errno != 0 {
		return errno
	}
	w.followNot()
	w.follow = follow{fds[0], fds[1], 0}
	e := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(w.follow.disarmed)}
	if err := syscall.EpollCtl(w.epoll, syscall.EPOLL_CTL_ADD, w.follow.disarmed, &e); err != nil {
		w.followNot()
		return errnoOf(err)
	}
	return 0
}

// followNot is for one that has acted, or is followed no more.
func (w *watch) followNot() {
	if w.follow.handle < 0 {
		return
	}
	_ = syscall.EpollCtl(w.epoll, syscall.EPOLL_CTL_DEL, w.follow.disarmed, nil)
	_ = syscall.Close(w.follow.handle)
	_ = syscall.Close(w.follow.disarmed)
	w.follow = follow{-1, -1, 0}
}
