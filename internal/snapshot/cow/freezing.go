package cow

import (
	"context"
	"errors"

	"stillpoint/internal/snapshot/frozen"
	"stillpoint/internal/sys/freeze"
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

// freeze suspends writes to the volume.
func (t *target) freeze(ctx context.Context) error {
	if err := errors.Join(ctx.Err(), t.freezable()); err != nil {
		return err
	}
	ctx, cancel := context.WithDeadline(ctx, t.set.since.Add(window*3/4))
	defer cancel()
	if err := t.file().Freeze(ctx, &t.set.given); err != nil {
		return err
	}
	t.frozen.Store(true)
	return nil
}

func (t *target) file() frozen.File {
	return frozen.File{Root: t.filter.root, Name: string(t.Volume()), Device: t.device, Waiting: t.filter.waiting}
}
