// Package thread runs what changes the thread that it runs on: its namespaces, its
// working directory. It knows no word of the product.
package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Apart runs f on a thread that ends with it: a goroutine that ends locked takes
// its thread along. It is to be called by a goroutine of its own. The first thread
// of a process never ends, and what /proc says of the process is said of that
// one, so it is never taken.
func Apart(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		ended := make(chan struct{})
		go Apart(func() { defer close(ended); f() })
		<-ended
		return
	}
	f()
}
