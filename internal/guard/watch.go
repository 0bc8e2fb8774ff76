package guard

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"stillpoint/internal/sys/freeze"
	"stillpoint/internal/sys/process"
)

// programName is what a guard is called, and how it knows itself.
const programName = "stillpoint-guard"

// environment sets up the Go runtime of a guard: no garbage collection, no
// signals to interrupt it.
func environment() []string {
	return []string{"GOGC=off", "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1,containermaxprocs=0", "GOTRACEBACK=none"}
}

// The descriptors that a guard is born with.
const (
	socketFD   = 3
	parentFD   = 4
	sentinelFD = 5 // a thread of the parent; or the parent again
)

// Main turns this process into a guard, if it is to be one, and then never
// returns. It is the first statement of main, and of each TestMain in whose
// package a guard is started. The duties are those that a guard may be given.
func Main(duties ...Duty) {
	if len(os.Args) != 1 || os.Args[0] != programName {
		return
	}
	w := newWatch(socketFD, parentFD, sentinelFD)
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	signal.Ignore(ignored...)
	process.Spare()
	var failed syscall.Errno
	// What the parent had of others, such as a lock that lasts as long as anybody has it
	// open (flock(1)), is not to outlive it here.
	if err := errors.Join(process.CloseInherited(sentinelFD+1), process.LockMemory()); err != nil {
		failed = errnoOf(err)
	} else {
		failed = w.listen()
	}
	w.answer(0, failed)
	for failed == 0 && !w.over {
		w.step()
	}
	if failed == 0 && w.dead {
		w.execute(duties)
	}
	os.Exit(0) // this is no library any more, but the main function of a guard
}

// ignored are the signals that ask a process to end, or to stop.
var ignored = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE, syscall.SIGALRM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU,
}

// Times of a guard.
const (
	overslept = 100 * time.Millisecond // later than this it did not wait, but could not run
	retry     = 10 * time.Millisecond  // between two attempts to thaw
	retry2    = 100 * time.Millisecond // after patience
	// patience is how long something is tried in short steps; and how long a
	// parent that closed the socket may take to end.
	patience = 10 * time.Second
)

// A watch is what a guard does. After listen, and until it is over, it allocates
// nothing and calls nothing but epoll_wait, recvmsg, read, write, ioctl and close.
type watch struct {
	socket, parent, sentinel, epoll int

	began time.Time // times are counted from here

	volumes [256]int
	count   int

	held   bool
	holdTo time.Duration
	thawed bool // something, after holdTo
	heart  time.Duration
	beatTo time.Duration

	dying  bool // the parent, killed by us or not, or it has closed the socket
	dead   bool // it can do nothing new
	closed bool // the socket: no thread has it any more
	since  time.Duration
	over   bool

	follow follow
	duty   int // a descriptor that says what it is; -1 for none

	incoming int // how many descriptors are announced
	message  [questionSize]byte
	rights   [64]byte
	reply    [replySize]byte
	events   [2]syscall.EpollEvent
}

func newWatch(socket, parent, sentinel int) *watch {
	return &watch{socket: socket, parent: parent, sentinel: sentinel, epoll: -1, began: time.Now(), follow: follow{-1, -1, 0}, duty: -1}
}

// listen prepares to wait for the socket and for the sentinel's end.
func (w *watch) listen() syscall.Errno {
	var err error
	if w.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return errnoOf(err)
	}
	syscall.CloseOnExec(w.parent) // of no concern to the programs of a duty
	for _, fd := range []int{w.socket, w.sentinel} {
		syscall.CloseOnExec(fd)
		e := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
		if err := syscall.EpollCtl(w.epoll, syscall.EPOLL_CTL_ADD, fd, &e); err != nil {
			return errnoOf(err)
		}
	}
	return 0
}

// step waits for something to happen, or for the next time something must be
// done, and does it.
func (w *watch) step() {
	ms, before := w.timeout(), w.now()
	n, err := syscall.EpollWait(w.epoll, w.events[:], ms)
	if err != nil {
		n = 0 // EINTR; the times below count all the same
	}
	// Where this process itself could not run (the machine was stopped, or the
	// control group of both), nothing can be said of the parent's heart.
	if now := w.now(); ms >= 0 && now-before > time.Duration(ms)*time.Millisecond+overslept {
		w.beatTo, w.follow.since = now+w.heart, now
	}
	for i := range n {
		switch int(w.events[i].Fd) {
		case w.socket:
			w.receive()
			continue
		case w.follow.disarmed:
			w.followNot()
			continue
		}
		// It has died, but for threads that wait for a frozen volume.
		w.dead = true
		w.ends(w.sentinel)
	}
	w.due()
}

// timeout is how long nothing needs to be done, in ms, rounded up.
func (w *watch) timeout() int {
	now := w.now()
	var next time.Duration = -1
	sooner := func(t time.Duration) {
		if next < 0 || t < next {
			next = max(t, 0)
		}
	}
	switch {
	case w.dying && now-w.since > patience:
		sooner(retry2)
	case w.dying, w.held && now >= w.holdTo:
		sooner(retry)
	case w.held:
		sooner(w.holdTo - now)
	}
	if w.heart > 0 && !w.dying {
		sooner(w.beatTo - now)
	}
	if w.dying && w.follow.handle >= 0 {
		sooner(w.follow.to(w.since) - now)
	}
	if next < 0 {
		return -1
	}
	return int((next + time.Millisecond - 1) / time.Millisecond)
}

// due does what it is time for.
func (w *watch) due() {
	now := w.now()
	if w.heart > 0 && now >= w.beatTo && !w.dying {
		process.Kill(w.parent)
		w.dying, w.since = true, now
	}
	if w.dying || w.held && now >= w.holdTo {
		// Also when nothing is frozen: it may be about to be.
		w.thaw()
	}
	if w.dying && w.follow.handle >= 0 && now >= w.follow.to(w.since) {
		process.Kill(w.follow.handle)
		w.followNot()
	}
	// A parent that closes the socket and lives on does not want us.
	w.over = w.over || w.closed && w.follow.handle < 0 && (w.dead || now-w.since > patience)
}

// receive takes one message.
func (w *watch) receive() {
	var n, rights int
	var err error
	if w.incoming > 0 {
		n, rights, _, _, err = syscall.Recvmsg(w.socket, w.message[:], w.rights[:], syscall.MSG_CMSG_CLOEXEC|syscall.MSG_DONTWAIT)
	} else {
		n, err = syscall.Read(w.socket, w.message[:]) // without allocation
	}
	switch {
	case err == syscall.EINTR, err == syscall.EAGAIN:
		return
	case err != nil, n == 0:
		w.closed = true
		w.ends(w.socket)
		return
	case n != questionSize:
		return
	}
	seq := native.Uint32(w.message[4:])
	limit := time.Duration(native.Uint64(w.message[8:]))
	switch op(native.Uint32(w.message[:])) {
	case opWatch, opFollow, opBequeath:
		w.incoming++
	case opVolume:
		w.answer(seq, w.add(rights))
	case opFollowed:
		w.answer(seq, w.followed(rights))
	case opBequeathed:
		w.answer(seq, w.bequeathed(rights))
	case opUnwatch:
		w.forget()
		w.answer(seq, 0)
	case opHold:
		w.held, w.holdTo, w.thawed = true, w.now()+limit, false
		w.answer(seq, 0)
	case opDone:
		w.held = false
		w.answer(seq, 0)
		w.thawed = false
	case opHeart:
		w.heart, w.beatTo = limit, w.now()+limit
		w.answer(seq, 0)
	case opBeat:
		w.beatTo = w.now() + w.heart
	case opClose:
		if w.held {
			w.thaw()
		}
		w.dutyNot()
		w.over = true
	}
}

// ends is for the end of the parent or of the socket.
func (w *watch) ends(fd int) {
	_ = syscall.EpollCtl(w.epoll, syscall.EPOLL_CTL_DEL, fd, nil)
	if !w.dying {
		w.dying, w.since = true, w.now()
	}
}

func (w *watch) answer(seq uint32, errno syscall.Errno) {
	native.PutUint32(w.reply[:], seq)
	native.PutUint32(w.reply[4:], uint32(errno))
	native.PutUint32(w.reply[8:], 0)
	if w.thawed {
		native.PutUint32(w.reply[8:], 1)
	}
	_, _ = syscall.Write(w.socket, w.reply[:])
}

// add takes the descriptor that came with a message.
func (w *watch) add(n int) syscall.Errno {
	fds, errno := w.taken(n, 1)
	if errno != 0 {
		return errno
	}
	if w.count == len(w.volumes) {
		_ = syscall.Close(fds[0])
		return syscall.ENOSPC
	}
	w.volumes[w.count] = fds[0]
	w.count++
	return 0
}

// taken are the descriptors that came with a message, so many.
func (w *watch) taken(n, count int) ([]int, syscall.Errno) {
	w.incoming--
	messages, err := syscall.ParseSocketControlMessage(w.rights[:n])
	if err != nil || len(messages) != 1 {
		return nil, syscall.EBADMSG
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != count {
		return nil, syscall.EBADMSG
	}
	return fds, 0
}

func (w *watch) forget() {
	for _, fd := range w.volumes[:w.count] {
		_ = syscall.Close(fd)
	}
	w.count = 0
}

// thaw thaws all volumes. A volume that carries another one was frozen after
// it, and is thawed before it: whoever watches them gives the inner one first.
func (w *watch) thaw() {
	for i := w.count - 1; i >= 0; i-- {
		if freeze.ThawDescriptor(w.volumes[i]) == 0 {
			w.thawed = true
		}
	}
}

func (w *watch) now() time.Duration { return time.Since(w.began) }

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return syscall.EIO
}
