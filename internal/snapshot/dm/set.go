package dm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/frozen"
	"stillpoint/internal/sys/dm"
)

// A set is what one Prepare made ready.
type set struct {
	p       *Provider
	control *dm.Control
	id      string
	targets []*target

	commit sync.Mutex // held while Commit runs

	mu      sync.Mutex
	hold    *frozen.Hold // until nothing is left of the set
	held    bool         // between Hold and Resume
	resumed bool
	taken   bool // Commit succeeded
	aborted bool // or it is not to be held any more
}

// Instants is 1: all volumes of the set are frozen together.
func (s *set) Instants() int { return 1 }

// Suspends is true: that is what the freeze is for.
func (s *set) Suspends() bool { return true }

// Ready writes what is dirty, so that Hold finds little of it.
func (s *set) Ready(ctx context.Context) error {
	if err := s.hold.Write(ctx); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, fmt.Errorf("make ready: %w", err))
	}
	return ctx.Err()
}

// Steps are what Hold does, for a set that is held together with another one.
type Steps interface {
	// WriteAhead writes what is dirty.
	WriteAhead(ctx context.Context) error

	// Freeze freezes all volumes.
	Freeze(ctx context.Context) error
}

// Hold freezes all volumes.
func (s *set) Hold(ctx context.Context) error {
	if err := s.WriteAhead(ctx); err != nil {
		return err
	}
	return s.Freeze(ctx)
}

// WriteAhead is the first step of Hold.
func (s *set) WriteAhead(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.unheld(); err != nil {
		return err
	}
	if err := s.hold.WriteAhead(ctx); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, fmt.Errorf("hold: %w", err))
	}
	return nil
}

// unheld is nil before the set is held. It is called with mu held.
func (s *set) unheld() error {
	if s.held || s.resumed || s.aborted || s.hold == nil {
		return problem.Newf(problem.SnapshotFailed, s.id, "the set was held or aborted before")
	}
	return nil
}

// Freeze is the second step.
func (s *set) Freeze(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.unheld(); err != nil {
		return err
	}
	s.held = true
	if err := s.hold.Suspend(ctx); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, fmt.Errorf("hold: %w", err))
	}
	return nil
}

// Commit makes the kernel keep originals from now on.
func (s *set) Commit(ctx context.Context) ([]snapshot.Snapshot, error) {
	return s.CommitAt(ctx, time.Now())
}

// CommitAt is Commit, of a set that shares its instant with another one.
func (s *set) CommitAt(ctx context.Context, instant time.Time) ([]snapshot.Snapshot, error) {
	s.commit.Lock()
	defer s.commit.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.InTime(); err != nil {
		return nil, err
	}
	for _, t := range s.targets {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := t.capture(instant); err != nil {
			return nil, t.failed("commit", err)
		}
	}
	fault.Point("dm:captured")
	if err := errors.Join(ctx.Err(), s.InTime()); err != nil {
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

// InTime is nil while all volumes are suspended.
func (s *set) InTime() error {
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
		keeps := !t.taken.IsZero()
		t.mu.Unlock()
		if err != nil {
			t.lose(err)
		}
		if keeps { // also where it is lost, for then its watch takes it away, or Commit has failed
			t.watch()
		}
	}
	if errors.Is(err, frozen.ErrLate) {
		err = nil // what it means, the snapshots say
	}
	if err != nil {
		return problem.New(problem.SnapshotFailed, s.id, fmt.Errorf("resume: %w", err))
	}
	if s.taken { // nobody needs to wait for that
		go s.forget()
	}
	return ctx.Err()
}

// forget lets go of the volumes, of which none is frozen any more, so that others can
// unmount them. The guard stays: if this process dies, it takes our devices away.
func (s *set) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hold != nil {
		_ = s.hold.Forget() // that it is gone matters no more
	}
	for _, t := range s.targets {
		t.mu.Lock()
		_ = t.closeRoot()
		t.mu.Unlock()
	}
}

// finish lets go of the guard when nothing is left to be taken away.
func (s *set) finish() {
	for _, t := range s.targets {
		if !t.isReleased() {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.end()
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
	s.aborted = s.aborted || !taken
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
	err := errors.Join(errs...)
	if err != nil { // the guard stays, for when this process dies before all is taken away
		s.forget()
	}
	return err
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

var _ Roomed = (*set)(nil)
