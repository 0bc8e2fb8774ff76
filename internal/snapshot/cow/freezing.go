package cow

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
	freezePatience = 200 * time.Millisecond // then somebody looks what it may be waiting for
	freezeTries    = 50 * time.Millisecond  // between two attempts to end that
)

// sync writes what is dirty, of all volumes at once: what is written to one while
// another one is synced is dirty again.
func (s *set) sync(step string) error {
	return inParallel(s.targets, func(t *target) error {
		if err := freeze.Sync(t.filter.root); err != nil {
			return t.failed(step, err)
		}
		return nil
	})
}

// freeze suspends writes to the volume. When another program has done that, it
// gives up before the guard, which cannot know whose freeze it is, would end it.
func (t *target) freeze(ctx context.Context) error {
	if err := errors.Join(ctx.Err(), t.freezable()); err != nil {
		return err
	}
	ctx, cancel := context.WithDeadline(ctx, t.set.since.Add(window*3/4))
	defer cancel()
	for {
		err := t.freezeOnce()
		if err == nil {
			t.frozen.Store(true)
			return nil
		}
		if !errors.Is(err, freeze.ErrFrozen) {
			return err
		}
		select { // somebody else's, which ends
		case <-ctx.Done():
			return problem.New(problem.Busy, string(t.Volume()), fmt.Errorf("another program keeps the file system frozen: %w", ctx.Err()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// freezeOnce freezes, and does not wait for ever.
func (t *target) freezeOnce() error {
	root, err := dup(t.filter.root)
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
			t.set.given.Add(-1)
			t.set.freezes.Done()
		}
	}()
	wait, end := time.After(freezePatience), time.After(window)
	for {
		select {
		case err := <-frozen:
			return err
		case <-wait:
			t.interruptSplices()
			wait = time.After(freezeTries)
		case <-end:
			t.set.given.Add(1)
			t.set.freezes.Add(1)
			close(given)
			return problem.Newf(problem.FreezeBlocked, string(t.Volume()), "a write that was under way did not end, and kept the freeze waiting for %s", window)
		}
	}
}

// interruptSplices ends the waiting of those who are inside of a splice into a
// file of the volume, whose pipe is empty (do_splice in fs/splice.c): the one
// write that any user can make wait for ever. A freeze has begun, so the splice,
// which begins anew, waits for the thaw.
func (t *target) interruptSplices() {
	ctx, cancel := context.WithTimeout(context.Background(), frozenLook)
	defer cancel()
	here, _, err := t.copies(ctx)
	if err != nil {
		return
	}
	for _, c := range here {
		if c.Number == syscall.SYS_SPLICE {
			_ = process.Interrupt(c.TID)
		}
	}
}

// dup duplicates a descriptor, so that it can outlive the set.
func dup(f *os.File) (*os.File, error) {
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), f.Name()), nil
}
