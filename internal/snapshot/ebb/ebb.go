// Package ebb knows how fast something runs out, such as the room of a pool, for
// providers that give a snapshot up before it does. It knows of no pool and no snapshot.
package ebb

import "time"

// A Gauge remembers how much was left lately. The zero value has seen nothing. It is for
// one goroutine.
type Gauge struct {
	seen []reading // younger than was asked for last, and the last one before
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
