package cow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"stillpoint/internal/guard"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/frozen"
)

// window is the longest that anybody waits for the instant. It is a matter of
// milliseconds as a rule; when it is over, the volumes are thawed and everybody
// goes on, whatever the set has come to.
const window = frozen.Window

// Ready brings the indexes up to date and writes out what is dirty, so that Hold
// finds little of both.
func (s *set) Ready(ctx context.Context) error {
	for _, t := range s.targets {
		if err := t.settle(ctx); err != nil {
			return t.failed("make ready", err)
		}
	}
	if err := s.sync("make ready"); err != nil {
		return err
	}
	return ctx.Err()
}

// Hold lets nobody pass any more and freezes all volumes.
func (s *set) Hold(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held || s.resumed || s.left < len(s.targets) {
		return problem.Newf(problem.SnapshotFailed, s.id, "the set was held or aborted before")
	}
	s.held, s.holding = true, time.Now()
	if err := s.enter(ctx); err != nil {
		return err
	}
	for _, t := range s.targets {
		t.leaveSpace()
	}
	if err := s.copyAhead(ctx); err != nil { // what is hot since Prepare, or has changed
		return err
	}
	if err := s.flush(ctx); err != nil {
		return err
	}
	if err := s.beat(); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, fmt.Errorf("guard: %w", err))
	}
	if err := s.track(ctx); err != nil {
		return err
	}
	for _, t := range s.targets {
		if err := t.freezable(); err != nil { // before anybody waits
			return t.failed("hold", err)
		}
	}
	still, err := s.quieten(ctx)
	if err != nil {
		return err
	}
	s.still = still
	if err := s.watched(); err != nil {
		return err
	}
	ctx = s.p.crowds.shut(ctx, s)
	s.timer = time.AfterFunc(window, s.expire)
	for _, t := range s.targets {
		t.shut = time.Now()
		t.mapped(t.filter.shut())
	}
	if err := s.suspend(ctx); err != nil {
		return cmp.Or(s.tooMany(), err)
	}
	return s.inTime()
}

// enter waits until no other set is at its instant on any of the volumes, in
// an order that is the same for all sets.
func (s *set) enter(ctx context.Context) error {
	sorted := slices.SortedFunc(slices.Values(s.targets), func(a, b *target) int { return strings.Compare(string(a.Volume()), string(b.Volume())) })
	for _, t := range sorted {
		if err := t.filter.enter(ctx, s); err != nil {
			return errors.Join(t.failed("hold", err), s.leave())
		}
		s.entered = append(s.entered, t)
	}
	return nil
}

func (s *set) leave() error {
	err := inParallel(s.entered, func(t *target) error { return t.filter.leave(s) })
	s.entered = nil
	s.p.crowds.open(s)
	return err
}

// watched begins the time in which the guard lets volumes be frozen.
func (s *set) watched() error {
	s.since = time.Now()
	if err := s.guard.Hold(window); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, fmt.Errorf("guard: %w", err))
	}
	return nil
}

// suspend waits for those who are past the filter and freezes the volumes.
func (s *set) suspend(ctx context.Context) error {
	if err := s.drain(ctx); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, fmt.Errorf("wait for those who are writing: %w", err))
	}
	if err := s.letCopiesEnd(ctx); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, fmt.Errorf("wait for those who are copying: %w", err))
	}
	for _, layer := range s.layers { // a freeze writes what is dirty, and so waits for its disk
		if err := inParallel(layer, func(t *target) error {
			if err := t.freeze(ctx); err != nil {
				return t.failed("hold", err)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// expire lets everybody go on when the window is over. The guard thaws at the
// same time.
func (s *set) expire() {
	s.expired.Store(true)
	_ = inParallel(s.targets, func(t *target) error {
		t.lose(errLate)
		return t.filter.open(s, nil)
	})
	s.still()
}

func (s *set) inTime() error {
	if err := s.tooMany(); err != nil {
		return err
	}
	if err := s.spoiled.Load(); err != nil {
		return *err
	}
	if s.expired.Load() {
		return problem.Newf(problem.FreezeBlocked, s.id, "the instant could not be fixed within %s, so everybody was let go on: the server has too much to do", window)
	}
	return nil
}

// spoil is told why there can be no set any more. It waits for nobody.
func (s *set) spoil(err error) { s.spoiled.CompareAndSwap(nil, &err) }

// track brings the indexes up to date and finds what is hot, while new
// mappings are noted. Who was about to map a file when that began has done so
// when the search begins.
func (s *set) track(ctx context.Context) error {
	for _, t := range s.targets {
		if err := t.settle(ctx); err != nil {
			return t.failed("hold", err)
		}
		if err := t.builder.Watchful(); err != nil {
			return t.failed("hold", err)
		}
		if err := t.findLeases(); err != nil {
			return t.failed("hold", err)
		}
		if err := t.filter.track(t.ignoreLeased); err != nil {
			return t.failed("hold", err)
		}
	}
	if err := s.drain(ctx); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, fmt.Errorf("wait for those who are writing: %w", err))
	}
	for _, t := range s.targets {
		if err := t.look(ctx); err != nil {
			return t.failed("hold", err)
		}
		t.ignoreLeased() // and those that came meanwhile
	}
	// What is dirty is written before anybody waits, twice because the first
	// time may take long; then the index again.
	for range 2 {
		if err := s.sync("hold"); err != nil {
			return err
		}
	}
	for _, t := range s.targets {
		if err := t.settle(ctx); err != nil {
			return t.failed("hold", err)
		}
	}
	return nil
}

// heart is how long this process may not answer while the filter is armed:
// then the guard ends it, and with it everybody's waiting.
const heart = time.Second

// listen takes notes of what was announced, which else takes the kernel's
// memory.
func (s *set) listen() {
	for _, t := range s.targets {
		t.explained(0, 0)
	}
}

// beat tells the guard that we are well, until the set ends.
func (s *set) beat() error {
	if s.beating != nil {
		return nil
	}
	if err := s.guard.Heart(heart); err != nil {
		return err
	}
	s.beating = make(chan struct{})
	go func(g *guard.Guard, end chan struct{}) {
		tick := time.NewTicker(heart / 10)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				if s.well() {
					g.Beat()
				}
			}
		}
	}(s.guard, s.beating)
	go func(end chan struct{}) { // by itself: what is to be read can be much
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				s.listen()
			}
		}
	}(s.beating)
	return nil
}
