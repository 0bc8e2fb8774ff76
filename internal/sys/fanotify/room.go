package fanotify

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A room counts the descriptors that events may take. When the kernel cannot
// make one for an event, it denies the access (fanotify_read), so one must never
// be missing. What is not read waits in the queue and is none the worse.
type room struct {
	size int

	mu    sync.Mutex
	free  int
	freed chan struct{} // closed when there is more; nil while nobody waits
}

// roomTime is how long a Read waits for room before it says that there is none.
const roomTime = 50 * time.Millisecond

// ErrNoRoom is the error of a Read for whose event there was no descriptor: too
// many events are not answered. The event is in the queue still, and the one
// who waits goes on waiting, until some are answered and Read is called again.
var ErrNoRoom = errors.New("too many accesses wait for an answer")

// theRoom is that of all groups of this process, since the descriptors are:
// half of those that it can have.
var theRoom = sync.OnceValues(func() (*room, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return nil, failed("getrlimit", "RLIMIT_NOFILE", err)
	}
	return newRoom(int(min(l.Cur, 1<<20) / 2)), nil
})

func newRoom(size int) *room { return &room{size: size, free: size} }

// take waits for room for n more events.
func (r *room) take(n int, over <-chan struct{}) error {
	var late <-chan time.Time
	for {
		freed := r.try(n)
		if freed == nil {
			return nil
		}
		if late == nil {
			timer := time.NewTimer(roomTime)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-freed:
		case <-over:
			return os.ErrClosed
		case <-late:
			return ErrNoRoom
		}
	}
}

// try takes room if it is there, or returns what is closed when there is more.
func (r *room) try(n int) (freed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.free >= n {
		r.free -= n
		return nil
	}
	if r.freed == nil {
		r.freed = make(chan struct{})
	}
	return r.freed
}

// give undoes take.
func (r *room) give(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free += n
	if r.freed != nil && n > 0 {
		close(r.freed)
		r.freed = nil
	}
}

// Short tells whether more than half of the room for events that are read and
// not answered is taken, by this group and all others of this process: the time
// to answer some.
func (p *Permission) Short() bool {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	return p.room.free < p.room.size/2
}
