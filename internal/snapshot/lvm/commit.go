package lvm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/frozen"
)

// Instants is 1: all file systems of the set are frozen while it is taken.
func (s *set) Instants() int { return 1 }

// Suspends is true.
func (s *set) Suspends() bool { return true }

// Ready writes what is dirty.
func (s *set) Ready(ctx context.Context) error {
	if err := s.hold.Write(ctx); err != nil {
		return coded(s.id, err)
	}
	return ctx.Err()
}

// Hold freezes all file systems.
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
		return coded(s.id, err)
	}
	return nil
}

// unheld is nil before the set is held. It is called with mu held.
func (s *set) unheld() error {
	if s.held || s.aborted.Load() {
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
		return coded(s.id, fmt.Errorf("hold: %w", err))
	}
	s.suspended = true
	return nil
}

// Commit has the pools take the snapshots.
func (s *set) Commit(ctx context.Context) ([]snapshot.Snapshot, error) {
	return s.commitAt(ctx, time.Now())
}

func (s *set) commitAt(ctx context.Context, instant time.Time) ([]snapshot.Snapshot, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s.state != prepared {
		return nil, errors.New("commit: the set is not prepared")
	}
	s.state = failed
	if err := s.hold.InTime(); err != nil {
		return nil, coded(s.id, err)
	}
	s.watch = watch(s) // also where this fails, until all is undone
	for _, t := range s.targets {
		if err := t.take(s.control); err != nil {
			return nil, err
		}
		t.taken = instant
		fault.Point("lvm:snapshot-taken")
	}
	if err := s.hold.InTime(); err != nil {
		return nil, coded(s.id, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("the snapshots came too late: %w", err)
	}
	if s.aborted.Load() {
		return nil, problem.Newf(problem.SnapshotFailed, s.id, "the set was aborted while its snapshots were made")
	}
	s.state = taken
	var snaps []snapshot.Snapshot
	for _, t := range s.targets {
		snaps = append(snaps, t)
	}
	return snaps, nil
}

// Resume thaws all file systems.
func (s *set) Resume(context.Context) error {
	held, err := s.release()
	if held == 0 && err == nil {
		return nil // it was not held, or is resumed
	}
	for _, t := range s.targets {
		t.mu.Lock()
		t.held = held
		if err != nil {
			t.lose(err)
		}
		t.mu.Unlock()
	}
	if errors.Is(err, frozen.ErrLate) {
		return nil // Err says so
	}
	return coded(s.id, err)
}

// release ends the hold.
func (s *set) release() (time.Duration, error) {
	s.mu.Lock()
	if !s.held || s.resumed {
		s.mu.Unlock()
		return 0, nil
	}
	held, err := s.hold.Resume()
	s.resumed = true
	suspended := s.suspended
	s.mu.Unlock()
	if suspended { // or a freeze may still come about, under the guard
		err = errors.Join(err, s.letGo())
	}
	return held, err
}

// lock waits for the calls that change the set.
func (s *set) lock(ctx context.Context) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case s.busy <- struct{}{}:
		return func() { <-s.busy }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Abort undoes Prepare, and a Commit that failed.
func (s *set) Abort(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.aborted.Store(true)
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if s.state == taken || s.state == over {
		return nil
	}
	if err := s.undo(ctx); err != nil {
		s.later(&s.trying, err, s.Abort)
		return errors.Join(err, s.letGo()) // the guard stays, for when this process dies first
	}
	s.close()
	return nil
}
