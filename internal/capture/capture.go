// Package capture takes snapshots of all that some paths show, whatever volumes
// that is, without reading them: it knows which provider takes which volume,
// and at which live path each piece belongs, so that others can put it there.
package capture

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/coordinator"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/snapshot"
)

// A Set is the snapshots of a Plan.
type Set struct {
	*Plan
	ID string
	*coordinator.Capture
	Applications *quiesce.Applications // that have files in it
}

// Take takes the snapshots of a plan with the applications at rest that have
// files in it, as far as that is to be had. tell is told how these came through.
// When it fails, nothing is left.
func Take(ctx context.Context, p *Plan, settings quiesce.Settings, tell func(quiesce.Event)) (*Set, error) {
	apps, err := quiesce.Find(ctx, settings, p.selection(), tell)
	if err != nil {
		return nil, err
	}
	id := strings.ToLower(rand.Text()[:12])
	c, err := apps.Take(ctx, coordinator.Plan{ID: id, Groups: p.groups()})
	if err != nil {
		return nil, err
	}
	for _, n := range c.Notes {
		tell(quiesce.Event{Text: n.Path + " would belong to the snapshot and cannot be shown in it: what applications need for files of several instants is in backups only"})
	}
	return &Set{Plan: p, ID: id, Capture: c, Applications: apps}, nil
}

// selection is what the plan selects, for applications.
func (p *Plan) selection() quiesce.Selection {
	var mounts []string
	for _, place := range p.Places {
		if place.Volume != "" && !slices.Contains(p.Paths, place.Path) {
			mounts = append(mounts, place.Path)
		}
	}
	return quiesce.Selection{Paths: p.Paths, Mounts: mounts, Volume: func(path string) (id string, taken bool) {
		deepest := ""
		for _, place := range p.Places {
			if (path == place.Path || below(place.Path, path)) && len(place.Path) > len(deepest) {
				deepest, id = place.Path, string(place.Volume)
			}
		}
		return id, id != ""
	}}
}

// groups are the volumes of the plan by provider.
func (p *Plan) groups() (gs []coordinator.Group) {
	for _, v := range p.volumes {
		at := slices.IndexFunc(gs, func(g coordinator.Group) bool { return g.Provider.Name() == v.provider.Name() })
		if at < 0 {
			at, gs = len(gs), append(gs, coordinator.Group{Provider: v.provider})
		}
		gs[at].Targets = append(gs[at].Targets, snapshot.Target{Volume: v.volume, Paths: v.paths})
	}
	return gs
}

// Err is that of the first snapshot that did not stay good.
func (s *Set) Err() error {
	for _, t := range s.Snapshots {
		if err := t.Err(); err != nil {
			if problem.CodeOf(err) == problem.Uncatalogued {
				err = problem.New(problem.SnapshotLost, t.ID(), err)
			}
			return err
		}
	}
	return nil
}

// WhenYielded calls f, in a goroutine of its own, when the first of the snapshots is
// given up, unless done is closed before.
func (s *Set) WhenYielded(done <-chan struct{}, f func(why error)) {
	var once sync.Once
	for _, y := range s.yielders() {
		go func() {
			select {
			case <-y.Yielded():
				once.Do(func() { f(y.Err()) })
			case <-done:
			}
		}()
	}
}

// Yielded tells whether one of the snapshots is given up.
func (s *Set) Yielded() bool {
	for _, y := range s.yielders() {
		select {
		case <-y.Yielded():
			return true
		default:
		}
	}
	return false
}

func (s *Set) yielders() (all []snapshot.Yielder) {
	for _, t := range s.Snapshots {
		if y, ok := snapshot.Ask[snapshot.Yielder](t.Snapshot); ok {
			all = append(all, y)
		}
	}
	return all
}

// Release deletes all snapshots.
func (s *Set) Release(ctx context.Context) error {
	var errs []error
	for _, t := range s.Snapshots {
		if err := t.Release(ctx); err != nil {
			if problem.CodeOf(err) == problem.Uncatalogued {
				err = problem.New(problem.ReleaseFailed, t.ID(), err)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Taken is the instant of the first part of all snapshots.
func (s *Set) Taken() (first time.Time) {
	for _, t := range s.Snapshots {
		for _, p := range t.Parts() {
			if first.IsZero() || p.Taken.Before(first) {
				first = p.Taken
			}
		}
	}
	return first
}

// Pieces are the places of the plan with what belongs there.
func (s *Set) Pieces() []Piece {
	var all []Piece
	for _, pl := range s.Places {
		for _, t := range s.Snapshots {
			if pl.Volume != "" && t.Volume() == pl.Volume {
				all = append(all, Piece{Path: pl.Path, Root: t.Root(), Rel: pl.Rel})
			}
		}
	}
	return all
}

// A Piece is a part of a snapshot, and the live path that it is of.
type Piece struct {
	Path string
	Root string // of the snapshot
	Rel  string // below Root
}
