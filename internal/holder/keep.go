package holder

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/sys/process"
)

// programName is what a holder is called, and how it knows itself.
const programName = "stillpoint-holder"

// aloneVariable tells a holder how long it may be alone.
const aloneVariable = "STILLPOINT_HOLDER_ALONE"

func environment(alone time.Duration) []string {
	return []string{"GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1,containermaxprocs=0", "GOTRACEBACK=none", aloneVariable + "=" + alone.String()}
}

// The descriptors that a holder is born with.
const (
	socketFD   = 3
	parentFD   = 4
	sentinelFD = 5 // a thread of the parent
	doorFD     = 6 // for the next agent
	quietFD    = 7 // is closed when everybody was let go
)

// Main turns this process into a holder, if it is to be one, and then never
// returns. It is among the first statements of main, and of each TestMain in
// whose package a holder is started.
func Main() {
	if len(os.Args) != 1 || os.Args[0] != programName {
		return
	}
	runtime.LockOSThread()
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE, syscall.SIGALRM,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	process.Spare()
	_ = process.CloseInherited(quietFD + 1) // what the parent had of others, such as a lock, is not to outlive it here
	locked := process.LockMemory()
	alone, err := time.ParseDuration(os.Getenv(aloneVariable))
	if err != nil {
		alone = Alone
	}
	k := &keeper{alone: alone, client: -1, began: time.Now(), most: process.MostDescriptors(), buffer: fanotify.NewBuffer(4)}
	if k.listen() == nil && k.greet(locked) == nil {
		for !k.over {
			k.step()
		}
	}
	os.Exit(0) // and the kernel lets go of all filters. This is no library any more, but the main function of a holder
}

// Times of a holder.
const (
	// Heart is the longest time between two beats of an agent while somebody
	// may wait for its answer.
	Heart = time.Second

	// idleHeart is that time else. Nobody is hurt by an agent that does
	// nothing then, but one that never will again is to be replaced.
	idleHeart = 10 * time.Second

	rounds    = 50 * time.Millisecond  // between two looks while an agent dies
	overslept = 100 * time.Millisecond // later than this it did not wait, but could not run
	patience  = 10 * time.Second       // an agent that closes the socket and lives on does not want us
)

// A kept is a filter with the group's descriptor, which belongs to group.
type kept struct {
	Filter
	fd int
}

// A keeper is what a holder does. All is in one thread.
type keeper struct {
	alone  time.Duration // how long it waits for the next agent
	most   int           // descriptors that the parent could have
	buffer *fanotify.Buffer
	epoll  int
	began  time.Time // times are counted from here

	kept     []*kept
	incoming []message // announced, whose descriptors are to come

	armed   bool
	highest int
	beatTo  time.Duration // 0 before there is anything to keep

	dying    bool          // the parent was killed by us, or some of it is dead
	last     time.Duration // when all were let go then
	dead     bool          // all of it is, and no thread of it reads any more
	next     int           // number of an event that is to be answered then
	disarmed bool          // it was said that everybody was let go
	closed   bool          // the socket
	since    time.Duration
	client   int  // the next agent; -1 for none
	welcome  bool // it speaks our language
	over     bool
}

func (k *keeper) now() time.Duration { return time.Since(k.began) }

// listen prepares to wait for everything.
func (k *keeper) listen() (err error) {
	if k.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return err
	}
	for _, fd := range []int{socketFD, parentFD, sentinelFD, doorFD, quietFD} {
		syscall.CloseOnExec(fd)
	}
	if err := syscall.Listen(doorFD, 4); err != nil {
		return err
	}
	for _, fd := range []int{socketFD, doorFD} {
		if err := syscall.SetNonblock(fd, true); err != nil {
			return err
		}
	}
	for _, fd := range []int{socketFD, parentFD, sentinelFD, doorFD} {
		if err := k.wait(fd); err != nil {
			return err
		}
	}
	return nil
}

func (k *keeper) wait(fd int) error {
	e := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
	return syscall.EpollCtl(k.epoll, syscall.EPOLL_CTL_ADD, fd, &e)
}

func (k *keeper) waitNot(fd int) { _ = syscall.EpollCtl(k.epoll, syscall.EPOLL_CTL_DEL, fd, nil) }

// greet says that we are there, and who we are.
func (k *keeper) greet(locked error) error {
	me, err := process.Handle()
	if err != nil {
		return err
	}
	defer me.Close()
	return send(socketFD, message{op: opReply, a: uint64(errnoOf(locked))}, int(me.Fd()))
}

// step waits for something to happen, or for the next time something must be
// done, and does it.
func (k *keeper) step() {
	ms, before := k.timeout(), k.now()
	var events [16]syscall.EpollEvent
	n, err := syscall.EpollWait(k.epoll, events[:], ms)
	if err != nil {
		n = 0 // EINTR; the times below count all the same
	}
	// Where this process itself could not run (the machine was stopped, or the
	// control group of both), nothing can be said of the parent's heart.
	if now := k.now(); ms >= 0 && now-before > time.Duration(ms)*time.Millisecond+overslept && k.beatTo > 0 {
		k.beatTo = now + k.heart()
	}
	for _, e := range events[:n] {
		switch fd := int(e.Fd); fd {
		case socketFD:
			k.receive()
		case sentinelFD, parentFD:
			k.waitNot(fd)
			k.die(fd == parentFD)
		case doorFD:
			k.open()
		case k.client:
			k.serve()
		default:
			k.letGo(fd)
		}
	}
	k.answerMore()
	k.due()
}

func (k *keeper) heart() time.Duration {
	if k.armed {
		return Heart
	}
	return idleHeart
}

// timeout is how long nothing needs to be done, in ms, rounded up.
func (k *keeper) timeout() int {
	next := time.Duration(-1)
	switch {
	case !k.answered():
		return 0
	case k.dead:
		next = k.since + k.alone
	case k.dying:
		next = k.last + rounds
	case k.closed:
		next = k.since + patience
	case k.beatTo > 0 && !k.dying:
		next = k.beatTo
	}
	if next < 0 {
		return -1
	}
	return int((max(next-k.now(), 0) + time.Millisecond - 1) / time.Millisecond)
}

// due does what it is time for.
func (k *keeper) due() {
	now := k.now()
	switch {
	case k.dead && now >= k.since+k.alone, !k.dead && k.closed && now >= k.since+patience:
		k.over = true
	case k.beatTo > 0 && now >= k.beatTo && !k.dying:
		process.Kill(parentFD)
		k.die(false)
	case k.dying && !k.dead && now >= k.last+rounds:
		k.disarm()
	}
}
