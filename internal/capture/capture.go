// Package capture takes snapshots of all that some paths show, whatever volumes
// that is, without reading them: it knows which provider takes which volume,
// in which order the calls of package snapshot come, and at which live path each
// piece belongs, so that others can put it there.
package capture

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

// Limits of a capture.
const (
	holdTime = 2 * time.Minute // from the first Hold to the last Commit; providers have shorter ones for the freeze
	undoTime = time.Minute     // for what is undone when something failed
)

// A Set is the snapshots of a Plan.
type Set struct {
	*Plan
	ID        string
	Snapshots []Taken
}

// A Taken is one of them, and who took it.
type Taken struct {
	snapshot.Snapshot
	Provider string
}

// Unwrap returns the provider's own.
func (t Taken) Unwrap() snapshot.Snapshot { return t.Snapshot }

// pending is what one provider has prepared.
type pending struct {
	snapshot.Pending
	name string
}

// Take takes the snapshots of a plan. When it fails, nothing is left.
func Take(ctx context.Context, p *Plan) (*Set, error) {
	s := &Set{Plan: p, ID: strings.ToLower(rand.Text()[:12])}
	ps, err := s.prepare(ctx)
	if err == nil {
		err = s.commit(ctx, ps)
	}
	if err != nil {
		return nil, errors.Join(err, s.undo(ctx, ps))
	}
	return s, nil
}

func (s *Set) prepare(ctx context.Context) (ps []pending, err error) {
	var done []string
	for _, v := range s.volumes {
		name := v.provider.Name()
		if slices.Contains(done, name) {
			continue
		}
		done = append(done, name)
		var ts []snapshot.Target
		for _, of := range s.volumes {
			if of.provider.Name() == name {
				ts = append(ts, snapshot.Target{Volume: of.volume, Paths: of.paths})
			}
		}
		p, err := v.provider.Prepare(ctx, s.ID, ts)
		if err != nil {
			return ps, coded("prepare snapshots", name, err)
		}
		ps = append(ps, pending{p, name})
	}
	return ps, nil
}

// commit holds everything, commits and resumes. It does nothing else: file
// systems may be frozen.
func (s *Set) commit(ctx context.Context, ps []pending) (err error) {
	held := 0
	defer func() { err = errors.Join(err, resume(ctx, ps[:held])) }()
	ctx, cancel := context.WithTimeout(ctx, holdTime)
	defer cancel()
	for _, p := range ps {
		held++
		if err := p.Hold(ctx); err != nil {
			return coded("hold writes", p.name, err)
		}
	}
	for _, p := range ps {
		snaps, err := p.Commit(ctx)
		if err != nil {
			return coded("take snapshots", p.name, err)
		}
		for _, snap := range snaps {
			s.Snapshots = append(s.Snapshots, Taken{snap, p.name})
		}
	}
	return nil
}

// resume lets writes go on, everywhere at once, and tries twice.
func resume(ctx context.Context, ps []pending) error {
	errs := make([]error, len(ps))
	var wg sync.WaitGroup
	for i, p := range ps {
		wg.Go(func() {
			for range 2 {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
				errs[i] = coded("resume writes", p.name, p.Resume(ctx))
				cancel()
				if errs[i] == nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// undo takes back what a capture that failed has made.
func (s *Set) undo(ctx context.Context, ps []pending) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	errs := []error{s.Release(ctx)}
	for _, p := range ps {
		errs = append(errs, coded("undo the preparation", p.name, p.Abort(ctx)))
	}
	return errors.Join(errs...)
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

// coded gives an error without a code one.
func coded(what, provider string, err error) error {
	if err == nil {
		return nil
	}
	if problem.CodeOf(err) == problem.Uncatalogued {
		err = problem.New(problem.SnapshotFailed, "", err)
	}
	return fmt.Errorf("%s with %s: %w", what, provider, err)
}
