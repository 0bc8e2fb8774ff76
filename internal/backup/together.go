package backup

import (
	"context"
	"fmt"
	"slices"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// together looks whether each provider can take all its volumes in one set. Where
// it has no place for all their cache files, those that nobody wanted it for go to
// the next one that can take them.
func (p *plan) together(ctx context.Context, providers []snapshot.Provider, o Options) error {
	if o.OneAtATime {
		return nil
	}
	for i, pr := range providers {
		j, ok := pr.(snapshot.Joiner)
		if !ok {
			continue
		}
		var all []volume.Volume
		var free []*planned
		for k := range p.volumes {
			v := &p.volumes[k]
			if v.provider != pr {
				continue
			}
			all = append(all, v.volume)
			if v.asked == Auto || v.asked == "" {
				free = append(free, v)
			}
		}
		if len(all) < 2 {
			continue
		}
		err := j.Together(ctx, all)
		if problem.CodeOf(err) != problem.CacheNowhere || len(free) == 0 {
			if err != nil {
				return err
			}
			continue
		}
		rest := slices.Clone(providers[i+1:])
		for _, v := range free {
			next, nerr := choose(ctx, rest, Auto, v.volume)
			if nerr != nil {
				return fmt.Errorf("%w; taken one at a time (--one-at-a-time) each can have one on another volume", err)
			}
			v.provider = next
		}
	}
	return nil
}
