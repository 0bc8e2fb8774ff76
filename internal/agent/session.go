package agent

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/snapshot"
)

// A session is one client of one provider, and what it holds.
type session struct {
	provider snapshot.Provider
	client   int // its process
	since    time.Time

	mu        sync.Mutex
	sets      map[string]snapshot.Pending
	snapshots []snapshot.Snapshot
	foreign   map[int]bool // of these, by index, what others left, and what is released
	over      bool
}

// endTime is how long is tried to release what a client left.
const endTime = 2 * time.Minute

// end takes back what the client holds, and returns how many snapshots that were.
func (own *session) end(ctx context.Context) (released int) {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	own.mu.Lock()
	own.over = true
	sets, snapshots := maps.Clone(own.sets), slices.Clone(own.snapshots) // what comes later is released at once
	own.mu.Unlock()
	for _, pending := range sets {
		// Nobody is there any more to be told of errors; what is held ends
		// with this process at the latest.
		_ = pending.Resume(ctx)
		_ = pending.Abort(ctx)
	}
	for i, snap := range snapshots {
		own.mu.Lock()
		foreign := own.foreign[i]
		own.mu.Unlock()
		if !foreign {
			_ = snap.Release(ctx)
			released++
		}
	}
	return released
}

// taken is how many snapshots of a set there are.
func (own *session) taken(set string) (n int) {
	own.mu.Lock()
	defer own.mu.Unlock()
	for _, snap := range own.snapshots {
		if strings.HasPrefix(snap.ID(), set+"/") {
			n++
		}
	}
	return n
}

// add keeps snapshots and returns what the client is to know of them.
func (own *session) add(ctx context.Context, snaps []snapshot.Snapshot, foreign bool) []taken {
	own.mu.Lock()
	defer own.mu.Unlock()
	var all []taken
	for _, snap := range snaps {
		if own.over && !foreign { // the client died at the last moment
			_ = snap.Release(context.WithoutCancel(ctx))
			continue
		}
		n := len(own.snapshots)
		own.snapshots = append(own.snapshots, snap)
		own.foreign[n] = foreign
		all = append(all, taken{n, snap.ID(), snap.Volume()})
	}
	return all
}

// forget is for a snapshot that was released: only its number stays.
func (own *session) forget(snap snapshot.Snapshot) {
	own.mu.Lock()
	defer own.mu.Unlock()
	own.foreign[slices.Index(own.snapshots, snap)] = true
}
