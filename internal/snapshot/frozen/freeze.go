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

// freeze suspends writes to one file system. When another program has done that,
// it gives up before the guard, which cannot know whose freeze it is, would end it.
func (h *Hold) freeze(ctx context.Context, s *system) error {
	for {
		err := h.freezeOnce(s)
		if err == nil {
			s.frozen.Store(true)
			return nil
		}
		if !errors.Is(err, freeze.ErrFrozen) {
			return err
		}
		select { // somebody else's, which ends
		case <-ctx.Done():
			return problem.New(problem.Busy, s.Name, fmt.Errorf("another program keeps the file system frozen: %w", ctx.Err()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// freezeOnce freezes, and does not wait for ever.
func (h *Hold) freezeOnce(s *system) error {
	root, err := dup(s.Root)
	if err != nil {
		return err
	}
	frozen, given := make(chan error), make(chan struct{})
	go func() {
		defer root.Close()
		err := freeze.Freeze(root)
		select {
		case frozen <- err:
		case <-given: // nobody waits for it any more
			if err == nil {
				_ = freeze.Thaw(root)
			}
			h.given.Add(-1)
			h.pending.Done()
		}
	}()
	wait, end := time.After(patience), time.After(Window)
	for {
		select {
		case err := <-frozen:
			return err
		case <-wait:
			s.interruptSplices()
			wait = time.After(tries)
		case <-end:
			h.given.Add(1)
			h.pending.Add(1)
			close(given)
			return problem.Newf(problem.FreezeBlocked, s.Name, "a write that was under way did not end, and kept the freeze waiting for %s", Window)
		}
	}
}

// interruptSplices ends the waiting of those who are inside of a splice into a
// file of the file system, whose pipe is empty (do_splice in fs/splice.c): the one
// write that any user can make wait for ever. A freeze has begun, so the splice,
// which begins anew, waits for the thaw.
func (s *system) interruptSplices() {
	ctx, cancel := context.WithTimeout(context.Background(), look)
	defer cancel()
	all, err := process.CopyingTasks(ctx)
	if err != nil {
		return
	}
	for _, c := range all {
		if c.Unsure || c.Number != syscall.SYS_SPLICE {
			continue
		}
		f, ok := process.InTime(c.TID, func() (f process.File) {
			f, _ = process.FileOf(c.TID, c.To)
			return f
		})
		if ok && f.Dev == s.device {
			_ = process.Interrupt(c.TID)
		}
	}
}

// dup duplicates a descriptor, so that it can outlive the Hold.
func dup(f *os.File) (*os.File, error) {
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), f.Name()), nil
}
