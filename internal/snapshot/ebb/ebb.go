// Package ebb knows how fast something runs out, such as the room of a pool, for
// providers that give a snapshot up before it does. It knows of no pool and no snapshot.
package ebb

import (
	"slices"
	"time"
)

// A Gauge remembers how much was left lately. The zero value has seen nothing. It is for
// one goroutine.
type Gauge struct {
	seen []reading // younger than was asked for last, and the last one before; the last is now's
}

type reading struct {
	at   time.Time
	left uint64
}

// Fell notes what is left now, and tells by how much more that was within the time back.
func (g *Gauge) Fell(now time.Time, left uint64, back time.Duration) uint64 {
	for len(g.seen) > 1 && now.Sub(g.seen[1].at) >= back {
		g.seen = g.seen[1:]
	}
	g.seen = append(g.seen, reading{now, left})
	most := left
	for _, r := range g.seen {
		most = max(most, r.left)
	}
	return most - left
}

// Soon is how much it will fall within the time ahead if it goes on as within the time
// back, to the note before: what has just begun to fall does not show in Fell yet. As long
// as nothing is known of so long, it is 0.
func (g *Gauge) Soon(back, ahead time.Duration) uint64 {
	if len(g.seen) == 0 {
		return 0
	}
	last := g.seen[len(g.seen)-1]
	for _, r := range slices.Backward(g.seen) {
		span := last.at.Sub(r.at)
		if span < back || span == 0 {
			continue
		}
		return uint64(float64(r.left-min(r.left, last.left)) * float64(ahead) / float64(span))
	}
	return 0
}
