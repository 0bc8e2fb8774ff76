package agent

import (
	"cmp"
	"context"
	"slices"

	"stillpoint/internal/snapshot"
)

// unburden deletes what killed processes have left. Nobody watches over it any more: with
// a cache file or a room originals go on being kept, which costs writers time, and what
// lies in the pool of live volumes fills that.
func (r *Resident) unburden(ctx context.Context) {
	for _, p := range slices.SortedStableFunc(slices.Values(r.o.Providers), heavier) {
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

// heavier puts those with cache files first: they ask no program, which may take its time,
// and writers wait for what they have left.
func heavier(a, b snapshot.Provider) int {
	return cmp.Compare(weight(b), weight(a))
}

func weight(p snapshot.Provider) int {
	if _, has := p.(snapshot.CacheChooser); has {
		return 1
	}
	return 0
}
