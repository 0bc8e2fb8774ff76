package cow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/guard"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/frozen"
	"stillpoint/internal/volume"
)

// A set is what one Prepare made ready.
type set struct {
	p       *Provider
	id      string
	targets []*target   // as they were wanted
	layers  [][]*target // in the order in which they are frozen, each at once
	guard   *guard.Guard

	since   time.Time // of the guard's time
	holding time.Time // since Hold was called
	still   func()    // ends the pause of cache files; nil without one

	commit sync.Mutex // held while Commit runs

	given frozen.Given // freezes that may still come about

	timer   *time.Timer // ends the window
	expired atomic.Bool
	spoiled atomic.Pointer[error] // why it can be none any more
	crowd   crowd

	mu      sync.Mutex
	entered []*target // whose gates are ours
	held    bool      // between Hold and Resume
	resumed bool
	taken   bool // Commit succeeded
	left    int  // targets that are not released
	over    bool
	beating chan struct{}
}

// Prepare builds the index of each volume and makes ready all else.
func (p *Provider) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	return p.prepare(ctx, id, ts, p.o.Cache, "")
}

func (p *Provider) prepare(ctx context.Context, id string, ts []snapshot.Target, r cachefile.Rules, dir string) (_ snapshot.Pending, err error) {
	if len(ts) == 0 {
		return nil, fmt.Errorf("set %q of no targets", id)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := p.claim(id); err != nil {
		return nil, err
	}
	s := &set{p: p, id: id}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Abort(context.WithoutCancel(ctx)))
		}
	}()
	// The guard is a process, which takes its time to start, and so is a deputy.
	started := make(chan error, 1)
	go func() {
		var err error
		if s.guard, err = guard.Start(); err == nil {
			err = p.guarded(s.guard)
		}
		started <- err
	}()
	err = s.prepareTargets(ctx, ts, r, dir)
	if gerr := <-started; err == nil && gerr != nil {
		err = problem.New(problem.SnapshotFailed, id, fmt.Errorf("start the guard: %w", gerr))
	}
	if err != nil {
		return nil, err
	}
	s.layers = innerFirst(s.targets)
	for _, t := range slices.Concat(s.layers...) {
		if err := s.guard.Watch(t.filter.root); err != nil {
			return nil, t.failed("prepare", err)
		}
	}
	if err := s.enter(ctx); err != nil { // there may be a freeze
		return nil, err
	}
	if err := errors.Join(s.copyAhead(ctx), s.leave()); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *set) prepareTargets(ctx context.Context, ts []snapshot.Target, r cachefile.Rules, dir string) error {
	var vs []volume.Volume
	for _, t := range ts {
		vs = append(vs, t.Volume)
	}
	place, _, err := s.p.place(ctx, vs, r, dir)
	if err != nil {
		return err
	}
	for i, wanted := range ts {
		t := &target{set: s, target: wanted, early: map[uint64]*early{}}
		s.targets, s.left = append(s.targets, t), s.left+1
		if err := t.prepare(ctx, place, i); err != nil {
			return t.failed("prepare", err)
		}
	}
	return nil
}

// Instants is 1: all volumes of the set are frozen together.
func (s *set) Instants() int { return 1 }

// Suspends is true: that is what the freeze is for.
func (s *set) Suspends() bool { return true }

// Commit fixes the instant.
func (s *set) Commit(ctx context.Context) ([]snapshot.Snapshot, error) {
	s.commit.Lock()
	defer s.commit.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	instant := time.Now()
	for _, t := range s.targets {
		if !t.frozen.Load() {
			return nil, t.failed("commit", errors.New("its writes are not suspended"))
		}
	}
	if err := s.copiesAreHot(ctx); err != nil {
		return nil, cmp.Or[error](s.inTime(), problem.New(problem.SnapshotFailed, s.id, fmt.Errorf("commit: %w", err)))
	}
	for _, t := range s.targets {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := t.capture(ctx, instant); err != nil {
			return nil, cmp.Or(s.inTime(), t.failed("commit", err))
		}
	}
	err := inParallel(s.targets, func(t *target) error {
		if err := t.filter.open(s, t.shield); err != nil {
			return t.failed("commit", err)
		}
		return nil
	})
	if err = cmp.Or(err, s.inTime()); err != nil { // before anything else says that it is lost
		return nil, err
	}
	for _, t := range s.targets {
		if err := t.saved(); err != nil {
			return nil, t.failed("commit", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.inTime(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resumed {
		return nil, problem.Newf(problem.SnapshotFailed, s.id, "the window closed before the instant was fixed")
	}
	s.taken = true
	var snaps []snapshot.Snapshot
	for _, t := range s.targets {
		snaps = append(snaps, t)
	}
	return snaps, nil
}

// Resume thaws all volumes and lets those go on who still wait at a gate.
func (s *set) Resume(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.held {
		return nil
	}
	s.held, s.resumed = false, true
	if s.timer != nil && s.taken {
		s.timer.Stop() // the gates are open
	}
	var errs []error
	for _, layer := range slices.Backward(s.layers) {
		errs = append(errs, inParallel(layer, (*target).thaw))
	}
	if s.still != nil {
		s.still()
	}
	errs = append(errs, inParallel(s.entered, func(t *target) error { return t.filter.open(s, nil) }))
	if s.timer != nil {
		s.timer.Stop()
	}
	if late, err := s.guard.Done(); err != nil || late {
		for _, t := range s.targets {
			t.lose(errLate)
		}
		errs = append(errs, err)
	}
	errs = append(errs, s.leave())
	if s.commit.TryLock() { // else the set is none any more
		for _, t := range s.targets {
			if t.index != nil {
				errs = append(errs, t.index.Thawed())
			}
			t.mindSpace()
		}
		s.commit.Unlock()
	}
	if err := errors.Join(errs...); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, fmt.Errorf("resume: %w", err))
	}
	return ctx.Err()
}

var errLate = errors.New("the volume was thawed by somebody else, or by the guard, before the instant was fixed")

// Abort takes everything away that Prepare, Hold and a Commit that did not
// succeed have made.
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
	if len(s.targets) == 0 {
		errs = append(errs, s.end())
	}
	return errors.Join(errs...)
}

// gone is told when a target is released.
func (s *set) gone() error {
	s.mu.Lock()
	s.left--
	last := s.left == 0
	s.mu.Unlock()
	if last {
		return s.end()
	}
	return nil
}

func (s *set) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil
	}
	s.over = true
	s.p.unclaim(s.id)
	if s.guard == nil {
		return nil
	}
	if s.beating != nil {
		close(s.beating)
		s.beating = nil
	}
	return s.given.End(s.guard, s.unguard)
}

func (s *set) unguard() error {
	s.p.guardedNot(s.guard)
	return s.guard.Close()
}

var _ snapshot.Readier = (*set)(nil)
