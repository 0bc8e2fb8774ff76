package dm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/frozen"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// A set is what one Prepare made ready.
type set struct {
	p       *Provider
	control *dm.Control
	id      string
	targets []*target

	commit sync.Mutex // held while Commit runs

	mu      sync.Mutex
	hold    *frozen.Hold // nil once the set is over
	held    bool         // between Hold and Resume
	resumed bool
	taken   bool // Commit succeeded
}

// Prepare lays our devices below the origins. From then on these are asked, which
// nobody notices but by the time that it takes; nothing is kept yet.
func (p *Provider) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	return p.prepare(ctx, id, ts, p.rules, "")
}

func (p *Provider) prepare(ctx context.Context, id string, ts []snapshot.Target, r cachefile.Rules, dir string) (_ snapshot.Pending, err error) {
	if len(ts) == 0 {
		return nil, fmt.Errorf("set %q of no targets", id)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var vs []volume.Volume
	for _, t := range ts {
		if err := p.check(ctx, t.Volume, r, dir); err != nil {
			return nil, err
		}
		vs = append(vs, t.Volume)
	}
	place, _, err := p.place(ctx, vs, r, dir)
	if err != nil {
		return nil, err
	}
	s := &set{p: p, id: id, control: p.control}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Abort(context.WithoutCancel(ctx)))
		}
	}()
	if err := s.open(ts); err != nil {
		return nil, err
	}
	err = locked(ctx, s.control, s.numbers(), func() error {
		for i, t := range s.targets {
			if err := errors.Join(ctx.Err(), t.prepare(place, i)); err != nil {
				return t.failed("prepare", err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.hold.Sync(); err != nil { // so that the freeze finds little to write
		return nil, problem.New(problem.SnapshotFailed, id, err)
	}
	return s, nil
}

// open opens all volumes and gives them to a guard.
func (s *set) open(ts []snapshot.Target) error {
	me, err := self()
	if err != nil {
		return problem.New(problem.SnapshotFailed, s.id, err)
	}
	var systems []frozen.System
	for i, wanted := range ts {
		number, err := nearest(wanted.Volume)
		if err != nil {
			return err
		}
		t := &target{set: s, volume: wanted.Volume, origin: origin{s.control, number}}
		t.tag = tag{origin: number, set: s.id, index: i, owner: me}
		s.targets = append(s.targets, t)
		if t.root, err = open(wanted.Volume); err != nil {
			return err
		}
		systems = append(systems, frozen.System{Root: t.root, Name: string(wanted.Volume.ID), Depth: depthOf(wanted.Volume, ts, len(ts))})
	}
	if s.hold, err = frozen.New(systems); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, err)
	}
	return nil
}

// depthOf is how many volumes of the set v lies on, being files there, one on the
// other.
func depthOf(v volume.Volume, ts []snapshot.Target, most int) (depth int) {
	for _, d := range v.Stack {
		for _, t := range ts {
			for _, m := range t.Volume.Mounts {
				if d.File != "" && most > 0 && t.Volume.ID != v.ID && strings.HasPrefix(d.File, strings.TrimSuffix(m.Point, "/")+"/") {
					depth = max(depth, 1+depthOf(t.Volume, ts, most-1))
				}
			}
		}
	}
	return depth
}

func (s *set) numbers() (all []dm.Number) {
	for _, t := range s.targets {
		all = append(all, t.origin.number)
	}
	return all
}

// Instants is 1: all volumes of the set are frozen together.
func (s *set) Instants() int { return 1 }

// Suspends is true: that is what the freeze is for.
func (s *set) Suspends() bool { return true }

// Ready writes what is dirty, so that Hold finds little of it.
func (s *set) Ready(ctx context.Context) error {
	if err := s.hold.Sync(); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, fmt.Errorf("make ready: %w", err))
	}
	return ctx.Err()
}

// Hold freezes all volumes.
func (s *set) Hold(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held || s.resumed || s.hold == nil {
		return problem.Newf(problem.SnapshotFailed, s.id, "the set was held or aborted before")
	}
	s.held = true
	if err := s.hold.Suspend(ctx); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, fmt.Errorf("hold: %w", err))
	}
	return nil
}

// Commit makes the kernel keep originals from now on.
func (s *set) Commit(ctx context.Context) ([]snapshot.Snapshot, error) {
	s.commit.Lock()
	defer s.commit.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.inTime(); err != nil {
		return nil, err
	}
	instant := time.Now()
	for _, t := range s.targets {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := t.capture(instant); err != nil {
			return nil, t.failed("commit", err)
		}
	}
	fault.Point("dm:captured")
	if err := errors.Join(ctx.Err(), s.inTime()); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resumed || !s.held {
		return nil, problem.Newf(problem.SnapshotFailed, s.id, "the window closed before the instant was fixed")
	}
	s.taken = true
	var snaps []snapshot.Snapshot
	for _, t := range s.targets {
		snaps = append(snaps, t)
	}
	return snaps, nil
}

func (s *set) inTime() error {
	s.mu.Lock()
	hold := s.hold
	s.mu.Unlock()
	if hold == nil {
		return problem.Newf(problem.SnapshotFailed, s.id, "the set was aborted before")
	}
	if err := hold.InTime(); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, err)
	}
	return nil
}

// Resume thaws all volumes.
func (s *set) Resume(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.held {
		return nil
	}
	s.held, s.resumed = false, true
	held, err := s.hold.Resume()
	for _, t := range s.targets {
		t.mu.Lock()
		t.held = held
		t.mu.Unlock()
		if err != nil {
			t.lose(err)
		} else if s.taken {
			t.watch()
		}
	}
	if errors.Is(err, frozen.ErrLate) {
		err = nil // what it means, the snapshots say
	}
	if err != nil {
		return problem.New(problem.SnapshotFailed, s.id, fmt.Errorf("resume: %w", err))
	}
	if s.taken { // nothing more is frozen
		err = s.end()
	}
	return errors.Join(err, ctx.Err())
}

// Abort takes everything away that Prepare, Hold and a Commit that did not succeed
// have made.
func (s *set) Abort(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.commit.Lock()
	defer s.commit.Unlock()
	s.mu.Lock()
	taken, held := s.taken, s.held
	s.mu.Unlock()
	if taken {
		return nil
	}
	var errs []error
	if held {
		errs = append(errs, s.Resume(ctx))
	}
	for _, t := range s.targets {
		errs = append(errs, t.Release(context.WithoutCancel(ctx)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(append(errs, s.end())...)
}

// end lets go of the guard. It is called with mu held.
func (s *set) end() error {
	if s.hold == nil {
		return nil
	}
	h := s.hold
	s.hold = nil
	return h.Close()
}

var _ snapshot.Readier = (*set)(nil)
