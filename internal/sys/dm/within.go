package dm

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Within makes a call that a signal can end, in a thread of its own, and ends it
// when the time is over: then the error is ErrSlow. One that no signal ends is
// waited for.
func Within(limit time.Duration, call func() error) error {
	if err := prepareEnder(); err != nil {
		return err
	}
	begun, ended := make(chan int, 1), make(chan error, 1)
	var over atomic.Bool
	go func() {
		runtime.LockOSThread()
		begun <- unix.Gettid()
		err := call()
		for errors.Is(err, unix.EINTR) && !over.Load() { // a signal of somebody else's
			err = call()
		}
		ended <- err // and the thread ends, since it stays locked, with a signal that came late
	}()
	tid := <-begun
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
	}
	over.Store(true)
	for {
		_ = unix.Tgkill(unix.Getpid(), tid, ender)
		select {
		case err := <-ended:
			// EINVAL is what kernels before August 2024 say of a resume that a
			// signal ended (7a636b4f03af, "dm resume: don't return EINVAL when
			// signalled"); the table in the slot is gone then. Or the kernel has
			// refused it: who asked finds out whether the device is suspended.
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("%w: %v (%w)", ErrSlow, limit, err)
			}
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// ErrSlow says that what was under way on a device did not end in time.
var ErrSlow = errors.New("what is under way on the device did not end in time")

// ender is the signal that ends a call: one that nobody sends to a program such as this,
// and not of those for real time. A thread that waits in a way that no signal ends has it
// once, however often it is sent; of those each would wait in a queue, and what may lie in
// the queues of all of a user's programs is limited (RLIMIT_SIGPENDING, signal(7)).
const ender = unix.SIGPWR

// prepareEnder gives the signal a handler that does nothing, and after which no
// call begins anew. Since August 2024 (1e1fd567d32f, "dm suspend: return
// -ERESTARTSYS instead of -EINTR") the kernel does that by itself with a suspension
// that was interrupted, unless the handler is without SA_RESTART; those of Go have
// it, all of them.
var prepareEnder = sync.OnceValue(func() error {
	handle(ender)
	a, err := actionOf(ender)
	if err != nil {
		return err
	}
	a[1] &^= saRestart
	return setAction(ender, a)
})

const saRestart = 0x10000000 // asm/signal.h
