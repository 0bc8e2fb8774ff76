package backup

import (
	"context"
	"fmt"

	"stillpoint/internal/candidate"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

// together looks whether each provider can take all its volumes in one set, and lets
// the next ones take what it cannot.
func (p *plan) together(ctx context.Context, providers []snapshot.Provider, o Options) error {
	if o.OneAtATime {
		return nil
	}
	set := make([]candidate.Share, len(p.volumes))
	for i, v := range p.volumes {
		set[i] = candidate.Share{Volume: v.volume, Provider: v.provider, Named: v.asked != Auto && v.asked != ""}
	}
	err := candidate.Settle(ctx, providers, set)
	if problem.CodeOf(err) == problem.CacheNowhere {
		return fmt.Errorf("%w; taken one at a time (--one-at-a-time) each can have one on another volume", err)
	}
	for i := range set {
		p.volumes[i].provider = set[i].Provider
	}
	return err
}
