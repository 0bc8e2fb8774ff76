package dm

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Within makes a call that a signal can end, in a thread of its own, and ends it
// when the time is over: then the error is ErrSlow. One that no signal ends is
// waited for.
func Within(limit time.Duration, call func() error) error {
	begun, ended := make(chan int, 1), make(chan error, 1)
	var over atomic.Bool
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		begun <- unix.Gettid()
		err := call()
		for errors.Is(err, unix.EINTR) && !over.Load() { // a signal of somebody else's
			err = call()
		}
		ended <- err
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
		// SIGURG does nothing in a program of Go but to interrupt (runtime/preempt.go).
		_ = unix.Tgkill(unix.Getpid(), tid, unix.SIGURG)
		select {
		case err := <-ended:
			if errors.Is(err, unix.EINTR) {
				return fmt.Errorf("%w: %v", ErrSlow, limit)
			}
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// ErrSlow says that what was under way on a device did not end in time.
var ErrSlow = errors.New("what is under way on the device did not end in time")
