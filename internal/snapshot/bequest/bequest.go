// Package bequest takes away what a process that died has left of a set, at once and
// not at the next start of the program: it makes that a duty of the set's guard. It
// knows that any provider finds what is left by itself, and removes it as a next
// process would; and nothing of how.
package bequest

import (
	"context"
	"strings"
	"time"

	"stillpoint/internal/guard"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

// What hinders a release is somebody else's, as a rule: a lock of the volume group, a
// table that is not live yet, a disk that does not answer. It may end soon, or when
// somebody has come to look; the next start of the program tries, too.
const (
	between = 3 * time.Second // and then more and more, for each try may read all disks
	most    = 30 * time.Second
	longest = time.Hour
)

// Of is the duty of taking away what a set of a provider has left, by the set's id.
func Of(p snapshot.Provider) guard.Duty {
	return guard.Duty{Name: p.Name(), Do: func(set string) { execute(p, set, between, longest) }}
}

// execute tries until nothing is left of the set.
func execute(p snapshot.Provider, set string, between, longest time.Duration) {
	for began := time.Now(); !release(p, set) && time.Since(began) < longest; {
		time.Sleep(between)
		between = min(2*between, most)
	}
}

// release tells whether nothing is left. Another process may do the same right now.
func release(p snapshot.Provider, set string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	left, err := p.Leftovers(ctx)
	done := err == nil || problem.Is(err, problem.LeftoverForeign) // which are nobody's to take away
	for _, l := range left {
		if of, _, _ := strings.Cut(l.ID(), "/"); of == set && l.Release(ctx) != nil {
			done = false
		}
	}
	return done
}
