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
	freezePatience = 500 * time.Millisecond // then something is wrong with one of those writes
	freezeTries    = 100 * time.Millisecond // between two attempts to end it
	freezeMost     = 5 * time.Second        // then nothing helps any more
)

// freeze suspends writes to the volume.
func (t *target) freeze(ctx context.Context) error {
	for {
		late, err := t.freezeOnce()
		switch {
		case err == nil && !late:
			t.frozen = true
			return nil
		case err == nil: // it came about after all
			return errors.Join(t.blocked(), freeze.Thaw(t.filter.root))
		case !errors.Is(err, freeze.ErrFrozen):
			return err
		}
		select { // somebody else's, which ends
		case <-ctx.Done():
			return problem.New(problem.Busy, string(t.Volume()), fmt.Errorf("another program keeps the file system frozen: %w", ctx.Err()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// freezeOnce freezes, and does not wait for ever. Late is true when writes were
// kept waiting for long.
func (t *target) freezeOnce() (late bool, err error) {
	root, err := dup(t.filter.root)
	if err != nil {
		return false, err
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
		}
	}()
	select {
	case err := <-frozen:
		return false, err
	case <-time.After(freezePatience):
	}
	end := time.After(freezeMost)
	for {
		t.interruptSplices()
		select {
		case err := <-frozen:
			return true, err
		case <-time.After(freezeTries):
		case <-end:
			close(given)
			select {
			case err := <-frozen: // at the last moment
				return true, err
			default:
				return true, t.blocked()
			}
		}
	}
}

// interruptSplices ends the waiting of those who are inside of a splice into a
// file of the volume, whose pipe is empty. The splice begins anew after the
// thaw. It is the one write that any user can make wait for ever.
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

// blocked is the error when a freeze did not come about in time.
func (t *target) blocked() error {
	return problem.Newf(problem.FreezeBlocked, string(t.Volume()), "a write that was under way did not end, and kept the freeze waiting for more than %s", freezePatience)
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
