package guard

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
)

// A Duty is what a guard does at the very end, when its parent has died without
// Close: it takes away what that has left, and what nobody waits for. It is not
// bound by what a guard may do before, and has no standard output.
type Duty struct {
	Name string          // without a space
	Do   func(of string) // what it is to be done with
}

// Bequeath gives the guard a duty, by its name, in the place of an earlier one.
func (g *Guard) Bequeath(duty, of string) error {
	text, in, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("guard with a duty: %w", err)
	}
	defer text.Close()
	if _, err := io.WriteString(in, duty+" "+of); err != nil { // a pipe holds far more
		in.Close()
		return fmt.Errorf("guard with a duty: %w", err)
	}
	if err := in.Close(); err != nil {
		return fmt.Errorf("guard with a duty: %w", err)
	}
	if _, err := g.ask(opBequeath, 0, text); err != nil {
		return fmt.Errorf("guard with a duty: %w", err)
	}
	return nil
}

// bequeathed takes the descriptor that came with a message.
func (w *watch) bequeathed(n int) syscall.Errno {
	fds, errno := w.taken(n, 1)
	if errno != 0 {
		return errno
	}
	w.dutyNot()
	w.duty = fds[0]
	return 0
}

// dutyNot is for a parent that leaves nothing.
func (w *watch) dutyNot() {
	if w.duty >= 0 {
		_ = syscall.Close(w.duty)
		w.duty = -1
	}
}

// execute does the duty. The parent has died, but its number may still be there.
func (w *watch) execute(duties []Duty) {
	if w.duty < 0 {
		return
	}
	debug.SetGCPercent(100)
	// What is ignored, the programs that a duty runs would ignore, too.
	signal.Notify(make(chan os.Signal, 1), ignored...)
	w.forget()
	text, err := io.ReadAll(os.NewFile(uintptr(w.duty), "duty"))
	if err != nil {
		return
	}
	name, of, _ := strings.Cut(string(text), " ")
	w.await(w.parent)
	for _, d := range duties {
		if d.Name == name {
			d.Do(of)
		}
	}
}

// await waits until a process has ended that is about to. That may take long: the last
// thread may have a file to close whose disk has much to do. Whatever is left is
// nobody's before.
func (w *watch) await(handle int) {
	e := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(handle)}
	if err := syscall.EpollCtl(w.epoll, syscall.EPOLL_CTL_ADD, handle, &e); err != nil {
		return
	}
	for {
		if n, err := syscall.EpollWait(w.epoll, w.events[:], -1); n > 0 || err != nil && err != syscall.EINTR {
			return
		}
	}
}
