package process

import (
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// interruptTime is how long a thread may take to notice.
const interruptTime = 300 * time.Millisecond

// childDumped is the last of the codes of a child that has ended (CLD_DUMPED,
// asm-generic/siginfo.h); those of one that is stopped come behind it.
const childDumped = 3

// Interrupt ends the waiting of a thread inside a system call, if a signal
// would: the call begins anew, or returns what it has done so far, as after a
// signal without a handler. The thread and its parent notice nothing else
// (PTRACE_INTERRUPT, ptrace(2)). It fails with EPERM where somebody traces the
// thread already.
func Interrupt(tid int) error {
	done := make(chan error, 1)
	go func() {
		// What a thread traces is let go at the latest when it ends, which it
		// does with this function because it stays locked.
		runtime.LockOSThread()
		done <- interrupt(tid)
	}()
	if err := <-done; err != nil {
		return failed("ptrace", strconv.Itoa(tid), err)
	}
	return nil
}

func interrupt(tid int) error {
	if err := unix.PtraceSeize(tid); err != nil {
		return err
	}
	if err := unix.PtraceInterrupt(tid); err != nil {
		return err
	}
	for began := time.Now(); ; time.Sleep(100 * time.Microsecond) {
		// Looked at and not taken: how a child of our own has ended is for who waits for it.
		var is unix.Siginfo
		err := unix.Waitid(unix.P_PID, tid, &is, unix.WSTOPPED|unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case is.Signo != 0 && is.Code <= childDumped:
			return unix.ESRCH // it has ended
		case is.Signo != 0:
			return unix.PtraceDetach(tid)
		case time.Since(began) > interruptTime:
			return unix.ETIMEDOUT // it waits for something that no signal ends
		}
	}
}
