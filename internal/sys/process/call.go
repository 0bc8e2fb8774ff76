package process

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// A Call is the system call that a thread is in, waiting for something.
type Call struct {
	Number int64 // -1 if it waits outside of one, such as in a page fault
	Args   [6]uint64
	SP, PC uint64 // where the thread called from
}

// ErrRunning says that a thread did not wait, so that nobody can tell what it
// does.
var ErrRunning = errors.New("the thread is running")

// patience is how long CallOf waits for a thread to go to sleep.
const patience = 20 * time.Millisecond

// CallOf tells in which system call a thread waits. One that has caused an
// event may still be on its way to sleep when the event is read, for some
// microseconds or until it gets a processor again, so it is asked again for a
// while; then the error is ErrRunning. This costs 6 µs when it sleeps.
func CallOf(tid int) (Call, error) {
	var began time.Time
	for try := 0; ; try++ {
		c, err := callOf(tid)
		if err != ErrRunning {
			return c, err
		}
		switch {
		case try < 5: // it needs a moment, and this processor, if there is but one
			_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		case try == 5:
			began = time.Now()
		case time.Since(began) > patience:
			return c, err
		default:
			time.Sleep(20 * time.Microsecond)
		}
	}
}

// callOf reads /proc/TID/syscall once (proc_pid_syscall): "running", or the
// number, six arguments, stack pointer and program counter; outside of a call
// only -1 and the last two.
func callOf(tid int) (Call, error) {
	path := procPath(tid, "syscall")
	var buf [256]byte
	b, err := path.read(buf[:])
	if err != nil {
		return Call{Number: -1}, failed("read", path.String(), err)
	}
	return parseCall(b)
}

func parseCall(b []byte) (Call, error) {
	first, b := field(b)
	switch {
	case len(first) == 0:
		return Call{Number: -1}, failed("read", "/proc/TID/syscall", unix.ESRCH)
	case first[0] == 'r':
		return Call{Number: -1}, ErrRunning
	}
	c := Call{Number: -1}
	if first[0] != '-' {
		c.Number = int64(number(first, 10))
		for i := range c.Args {
			c.Args[i], b = hexField(b)
		}
	}
	c.SP, b = hexField(b)
	c.PC, _ = hexField(b)
	return c, nil
}

// hexField takes a field such as 0x1f off b.
func hexField(b []byte) (uint64, []byte) {
	f, rest := field(b)
	return number(f[min(2, len(f)):], 16), rest
}

// An abi is the set of system calls that a number belongs to.
type abi int

const (
	unknownABI abi = iota
	nativeABI
	compatABI // 32-bit programs on a 64-bit kernel
)

// abi tells whose number it is.
func (c Call) abi() abi {
	switch {
	case c.Number < 0:
		return unknownABI
	case c.SP == 0 || c.PC == 0:
		// A thread of the kernel. The workers of io_uring have a copy of the
		// registers of the thread that happened to start them, which may
		// look as if they read, but never its stack pointer (copy_thread).
		return unknownABI
	case c.SP < 1<<32:
		// The stack of a 32-bit program is nowhere else. That of a 64-bit
		// one hardly ever is there, and it loses only speed.
		return compatABI
	}
	return nativeABI
}
