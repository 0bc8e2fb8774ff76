package candidate

import (
	"context"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A Share is a volume of a set, and who is to take it.
type Share struct {
	Volume   volume.Volume
	Provider snapshot.Provider // nil where nobody takes a snapshot of it
	Named    bool              // people want that one, so nobody else takes it
	Left     error             // why the one that was chosen for the volume alone does not take it in this set
}

// Settle looks whether each provider can take its volumes in one set. Where it has no
// place for their cache files but on volumes of the set, those that nobody wants it for
// go to the next one that can take them all.
func Settle(ctx context.Context, providers []snapshot.Provider, set []Share) error {
	for i, p := range providers {
		j, ok := p.(snapshot.Joiner)
		if !ok {
			continue
		}
		mine, others := divide(set, p)
		if len(mine) == 0 || len(mine)+len(others) < 2 {
			continue
		}
		err := together(ctx, j, mine, others)
		if problem.CodeOf(err) == problem.CacheNowhere {
			if pass(ctx, providers[i+1:], set, p, err) {
				mine, _ = divide(set, p)
			}
			err = nil
			if len(mine) > 0 {
				err = j.Together(ctx, mine) // on one that somebody else takes is better than nowhere
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// divide tells the volumes of a provider from those of others.
func divide(set []Share, p snapshot.Provider) (mine, others []volume.Volume) {
	for _, s := range set {
		switch s.Provider {
		case nil:
		case p:
			mine = append(mine, s.Volume)
		default:
			others = append(others, s.Volume)
		}
	}
	return mine, others
}

func together(ctx context.Context, j snapshot.Joiner, mine, others []volume.Volume) error {
	if b, ok := j.(snapshot.Neighbour); ok {
		return b.Beside(ctx, mine, others)
	}
	return j.Together(ctx, mine)
}

// pass gives the volumes of a provider that nobody wants it for to the next ones, if
// these can take all of them.
func pass(ctx context.Context, rest []snapshot.Provider, set []Share, p snapshot.Provider, why error) bool {
	next := map[int]snapshot.Provider{}
	for i, s := range set {
		if s.Provider != p || s.Named {
			continue
		}
		n, err := Choose(ctx, rest, s.Volume, Check)
		if err != nil {
			return false
		}
		next[i] = n
	}
	for i, n := range next {
		set[i].Provider, set[i].Left = n, why
	}
	return len(next) > 0
}
