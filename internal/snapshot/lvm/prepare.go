package lvm

import (
	"context"
	"errors"
	"fmt"

	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// Prepare makes the places for the snapshots: of thin volumes in their pools, of classic
// ones in the free extents of their groups. It takes both, as people may have named it.
func (p *Provider) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !validID(id) || len(ts) == 0 {
		return nil, fmt.Errorf("set %q of %d targets: not a set", id, len(ts))
	}
	var vs []volume.Volume
	for _, t := range ts {
		if err := candidate(t.Volume); err != nil {
			return nil, err
		}
		vs = append(vs, t.Volume)
	}
	if err := apart(vs); err != nil {
		return nil, err
	}
	c, err := open(ts[0].Volume)
	if err != nil {
		return nil, err
	}
	k, err := sort(c, ts)
	if err != nil || len(k.thin) == 0 { // or it is the set's
		defer c.Close()
	}
	switch {
	case err != nil:
		return nil, err
	case len(k.thin) == 0:
		return pending(p.prepareThick(ctx, c, id, ts))
	case len(k.thick) == 0:
		return pending(p.prepareThin(ctx, c, id, ts))
	}
	return pending(p.prepareBoth(ctx, c, id, k))
}

// pending is a set, which is nil where it is none.
func pending[T snapshot.Pending](s T, err error) (snapshot.Pending, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// kinds are the targets of a set by their kind.
type kinds struct {
	thin, thick []snapshot.Target
	isThin      []bool // of each target
}

func sort(c *dm.Control, ts []snapshot.Target) (k kinds, err error) {
	for _, t := range ts {
		_, err := find(c, t.Volume)
		thick := errors.Is(err, errThick)
		switch {
		case thick:
			k.thick = append(k.thick, t)
		case err != nil:
			return k, err
		default:
			k.thin = append(k.thin, t)
		}
		k.isThin = append(k.isThin, !thick)
	}
	return k, nil
}

// prepareThin makes a set of thin volumes ready.
func (p *Provider) prepareThin(ctx context.Context, c *dm.Control, id string, ts []snapshot.Target) (*set, error) {
	s := &set{id: id, console: p.console, control: c, busy: make(chan struct{}, 1)}
	if err := s.prepare(ctx, ts); err != nil {
		return nil, errors.Join(err, s.Abort(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// prepareBoth makes a set of both kinds ready. The volumes of each are held by
// themselves, and at the same time.
func (p *Provider) prepareBoth(ctx context.Context, c *dm.Control, id string, k kinds) (*both, error) {
	thin, err := p.prepareThin(ctx, c, id, k.thin)
	if err != nil {
		return nil, err
	}
	thick, err := p.prepareThick(ctx, c, id, k.thick)
	if err != nil {
		return nil, errors.Join(err, thin.Abort(context.WithoutCancel(ctx)))
	}
	return &both{id: id, thin: thin, thick: thick, isThin: k.isThin}, nil
}
