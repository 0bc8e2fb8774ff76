package frozen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/freeze"
	"stillpoint/internal/sys/process"
)

// A freeze waits for every write that is under way, keeps all others waiting
// meanwhile, and cannot be cancelled.
const (
	patience = 200 * time.Millisecond // then somebody looks what it may be waiting for
	tries    = 50 * time.Millisecond  // between two attempts to end that
	look     = 100 * time.Millisecond // for each
)

// A File is a file system that is frozen by itself.
type File struct {
	Root   *os.File // a directory of it
	Name   string   // for people
	Device uint64   // as stat says of its files

	// Waiting are the threads that somebody else lets wait before they have begun to
	// write. May be nil.
	Waiting func() map[int]bool
}

// Freeze suspends writes to one file system, under a guard that was told. When
// another program has done that, it gives up when ctx ends, which must be before
// the guard, which cannot know whose freeze it is, would end it.
func (f File) Freeze(ctx context.Context, given *Given) error {
	for {
		err := f.once(given)
		if !errors.Is(err, freeze.ErrFrozen) {
			return err
		}
		select { // somebody else's, which ends
		case <-ctx.Done():
			return problem.New(problem.Busy, f.Name, fmt.Errorf("another program keeps the file system frozen: %w", ctx.Err()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Thaw ends the freeze, and tells whether somebody else has done that before us, as the
// guard does when we are late. It never freezes in order to know: what a freeze waits
// for can last, and who is late is so because the disk is slow.
func (f File) Thaw() (late bool, err error) {
	err = freeze.Thaw(f.Root)
	if errors.Is(err, freeze.ErrNotFrozen) {
		return true, nil
	}
	return false, err
}

// once freezes, and does not wait for ever.
func (f File) once(given *Given) error {
	root, err := dup(f.Root)
	if err != nil {
		return err
	}
	frozen, over := make(chan error), make(chan struct{})
	go func() {
		defer root.Close()
		err := freeze.Freeze(root)
		select {
		case frozen <- err:
		case <-over: // nobody waits for it any more
			if err == nil {
				_ = freeze.Thaw(root)
			}
			given.over()
		}
	}()
	wait, end := time.After(patience), time.After(Window)
	for {
		select {
		case err := <-frozen:
			return err
		case <-wait:
			f.interruptSplices()
			wait = time.After(tries)
		case <-end:
			given.up()
			close(over)
			return problem.Newf(problem.FreezeBlocked, f.Name, "a write that was under way did not end, and kept the freeze waiting for %s", Window)
		}
	}
}

// interruptSplices ends the waiting of those who are inside of a splice into a
// file of the file system, whose pipe is empty (do_splice in fs/splice.c): the one
// write that any user can make wait for ever. A freeze has begun, so the splice,
// which begins anew, waits for the thaw.
func (f File) interruptSplices() {
	ctx, cancel := context.WithTimeout(context.Background(), look)
	defer cancel()
	all, err := process.CopyingTasks(ctx)
	if err != nil {
		return
	}
	var waiting map[int]bool
	if f.Waiting != nil {
		waiting = f.Waiting() // after the look: who was past them then is not among these
	}
	for _, c := range all {
		if c.Unsure || waiting[c.TID] || c.Number != syscall.SYS_SPLICE {
			continue
		}
		to, ok := process.InTime(c.TID, func() (to process.File) {
			to, _ = process.FileOf(c.TID, c.To)
			return to
		})
		if ok && to.Dev == f.Device {
			_ = process.Interrupt(c.TID)
		}
	}
}

// dup duplicates a descriptor, so that it can outlive its owner.
func dup(f *os.File) (*os.File, error) {
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), f.Name()), nil
}
