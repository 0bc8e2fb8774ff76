package agent

import (
	"context"

	"stillpoint/internal/snapshot"
)

// unburden deletes what killed processes have left of snapshots with cache files:
// originals would go on being kept, which costs writers time and the cache file's
// volume room, and nobody watches over either any more. What holds no writer up waits
// for the next backup.
func (r *Resident) unburden(ctx context.Context) {
	for _, p := range r.o.Providers {
		if _, has := p.(snapshot.CacheChooser); !has {
			continue
		}
		left, err := p.Leftovers(ctx)
		if err != nil && ctx.Err() == nil {
			r.o.Log.Warn("looking for snapshots of killed processes", "provider", p.Name(), "error", err)
		}
		for _, s := range left {
			if err := s.Release(ctx); ctx.Err() == nil {
				r.o.Log.Info("snapshot of a killed process deleted", "id", s.ID(), "provider", p.Name(), "error", err)
			}
		}
	}
}
