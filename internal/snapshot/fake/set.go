package fake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A set is from Prepare to the last Release.
type set struct {
	p      *Provider
	id     string
	disk   *disk
	copies []*copied
	live   chan struct{} // held while Commit or Abort is at work

	aborted   atomic.Bool
	committed atomic.Bool
	tried     bool

	mu   sync.Mutex
	held bool
	over bool
}

// Instants is 1, or the number of volumes if they are taken one by one.
func (s *set) Instants() int {
	if s.p.o.Separate {
		return len(s.copies)
	}
	return 1
}

// Suspends is true unless the volumes are taken one by one.
func (s *set) Suspends() bool { return !s.p.o.Separate }

// Hold closes the gate.
func (s *set) Hold(ctx context.Context) error {
	if err := s.p.step(ctx, "hold"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held {
		return errors.New("hold: held already")
	}
	s.p.o.Gate.mu.Lock()
	s.held = true
	s.p.hold("hold " + s.id)
	return nil
}

// Resume opens the gate, if Hold closed it.
func (s *set) Resume(ctx context.Context) error {
	if err := s.p.step(ctx, "resume"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held {
		s.held = false
		s.p.o.Gate.mu.Unlock()
		s.p.let("hold " + s.id)
	}
	return nil
}

// Commit copies. Unless Hold did, it closes the gate meanwhile.
func (s *set) Commit(ctx context.Context) ([]snapshot.Snapshot, error) {
	if err := s.p.step(ctx, "commit"); err != nil {
		return nil, err
	}
	select {
	case s.live <- struct{}{}:
		defer func() { <-s.live }()
	default:
		return nil, errors.New("commit: another call is at work")
	}
	if s.tried {
		return nil, errors.New("commit: called twice")
	}
	s.tried = true
	if err := s.copyAll(ctx); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("the copies came too late: %w", err)
	}
	if s.aborted.Load() {
		return nil, errors.New("the set was aborted while its copies were made")
	}
	s.committed.Store(true)
	var snaps []snapshot.Snapshot
	for _, c := range s.copies {
		s.p.hold("snapshot " + c.ID())
		snaps = append(snaps, c)
	}
	return snaps, nil
}

func (s *set) copyAll(ctx context.Context) error {
	s.mu.Lock()
	held := s.held
	s.mu.Unlock()
	if !held {
		s.p.o.Gate.mu.Lock()
		defer s.p.o.Gate.mu.Unlock()
	}
	now := time.Now()
	for i, c := range s.copies {
		c.dir = filepath.Join(s.disk.dir(), fmt.Sprint(i))
		c.at = now
		if s.p.o.Separate {
			c.at = now.Add(time.Duration(i)) // never equal
		}
		if err := os.Mkdir(c.dir, 0o700); err != nil {
			return problem.New(problem.SnapshotFailed, c.ID(), err)
		}
		for _, rel := range c.target.Paths {
			if below(rel, c.target.Paths) {
				continue // copied with the other one
			}
			if err := c.copy(ctx, rel); err != nil {
				return problem.New(problem.SnapshotFailed, c.ID(), err)
			}
		}
	}
	return nil
}

// copy copies one selected path with all attributes.
func (c *copied) copy(ctx context.Context, rel string) error {
	live, _ := Live(c.target.Volume, rel)
	to := filepath.Join(c.dir, rel)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return copyTree(ctx, live, to)
}

// Abort removes what Prepare made, and what a Commit made that failed.
func (s *set) Abort(ctx context.Context) error {
	if err := s.p.step(ctx, "abort"); err != nil {
		return err
	}
	s.aborted.Store(true)
	select {
	case s.live <- struct{}{}:
		defer func() { <-s.live }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.committed.Load() {
		return nil
	}
	return s.remove()
}

func (s *set) remove() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil
	}
	if err := s.disk.remove(); err != nil {
		return problem.New(problem.ReleaseFailed, s.id, err)
	}
	s.over = true
	s.p.let("set " + s.id)
	return nil
}

// copied is a snapshot.
type copied struct {
	set    *set
	target snapshot.Target
	dir    string
	at     time.Time

	mu       sync.Mutex
	released bool
	err      error
}

// ID is the set's and the volume's.
func (c *copied) ID() string { return c.set.id + "/" + string(c.target.Volume.ID) }

// Volume is the target's.
func (c *copied) Volume() volume.ID { return c.target.Volume.ID }

// Parts is the copy alone.
func (c *copied) Parts() []snapshot.Part {
	return []snapshot.Part{{Path: ".", Volume: c.target.Volume.ID, Taken: c.at}}
}

// Gaps is empty.
func (c *copied) Gaps() []snapshot.Gap { return nil }

// Root is the directory of the copy.
func (c *copied) Root() string { return c.dir }

// Err is nil until the snapshot is released, or lost by Lose.
func (c *copied) Err() error {
	c.set.p.mu.Lock()
	lost := c.set.p.lost[c.target.Volume.ID]
	c.set.p.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
	case lost != nil:
		c.err = lost
	case c.released:
		c.err = problem.Newf(problem.SnapshotLost, c.ID(), "it was released")
	}
	return c.err
}

// Yielded is closed by GiveUp.
func (c *copied) Yielded() <-chan struct{} { return c.set.p.yielded(c.target.Volume.ID) }

// Release removes the copy, and the set with the last one.
func (c *copied) Release(ctx context.Context) error {
	if err := c.set.p.step(ctx, "release"); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := removeAll(c.dir); err != nil {
		return problem.New(problem.ReleaseFailed, c.ID(), err)
	}
	c.released = true
	c.set.p.let("snapshot " + c.ID())
	for _, other := range c.set.copies {
		if other != c && !other.isReleased() {
			return nil
		}
	}
	return c.set.remove()
}

func (c *copied) isReleased() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.released
}

// below tells whether a path lies strictly below another one of them.
func below(rel string, all []string) bool {
	return slices.ContainsFunc(all, func(other string) bool {
		return rel != other && (other == "." || strings.HasPrefix(rel, other+"/"))
	})
}
