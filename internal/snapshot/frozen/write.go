package frozen

import (
	"context"
	"errors"
	"slices"
	"time"

	"stillpoint/internal/sys/freeze"
)

// ahead is how long applications may be at rest for what WriteAhead writes.
const ahead = time.Second

// Write writes what is dirty, so that Suspend takes less time. It waits no longer than the
// context lets it, though the kernel waits as long as a disk does, or a pool that is full.
func (h *Hold) Write(ctx context.Context) error {
	done, all := make(chan error, 1), slices.Concat(h.layers...)
	go func() { done <- inParallel(all, func(s *system) error { return freeze.Sync(s.Root) }) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// WriteAhead is Write right before Suspend, when others may be held already: twice, because
// the first time may take long, and not for long. What a disk that has too much to do
// has not written by then, the freeze writes, in its own time.
func (h *Hold) WriteAhead(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, ahead)
	defer cancel()
	err := h.Write(limited)
	if err == nil {
		err = h.Write(limited)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return ctx.Err()
	}
	return err
}
