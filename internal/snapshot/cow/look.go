package cow

import (
	"context"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/volume"
)

// Look is Check without a mark on the volume: whether the kernel has the events
// is asked of a file in memory.
func (p *Provider) Look(ctx context.Context, v volume.Volume) error {
	return p.look(ctx, v, p.o.Cache, "")
}

// Look is that of the provider, with the choice.
func (w *choice) Look(ctx context.Context, v volume.Volume) error {
	return w.look(ctx, v, w.rules, w.asked.Dir)
}

func (p *Provider) look(ctx context.Context, v volume.Volume, r cachefile.Rules, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	root, err := open(v)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := fanotify.Able(); err != nil {
		return problem.New(problem.NoProvider, string(v.ID), err)
	}
	if err := timesOf(v, root); err != nil {
		return err
	}
	_, _, err = p.place(ctx, []volume.Volume{v}, r, dir)
	return err
}

var _, _ snapshot.Looker = (*Provider)(nil), (*choice)(nil)
