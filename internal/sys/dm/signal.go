package dm

import (
	"fmt"
	"os"
	"os/signal"
	"unsafe"

	"golang.org/x/sys/unix"
)

// handle lets a signal do nothing but end calls, in all threads, for good.
func handle(s os.Signal) { signal.Notify(make(chan os.Signal, 1), s) }

// An action is struct sigaction of the kernel, as wide as its words are: the
// handler, the flags, and what is left as it is.
type action [8]uintptr

// setSize is that of the kernel's signal sets.
const setSize = 8

// actionOf is what happens at a signal, and setAction changes that.
func actionOf(s unix.Signal) (a action, err error) {
	return a, sigaction(s, nil, &a)
}

func setAction(s unix.Signal, a action) error { return sigaction(s, &a, nil) }

func sigaction(s unix.Signal, to, from *action) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(from)), setSize, 0, 0)
	if errno != 0 {
		return fmt.Errorf("signal %d: %w", s, errno)
	}
	return nil
}
