package cow

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/cow/shield"
	"stillpoint/internal/sys/fanotify"
)

// enter lets one set at a time be at its instant.
func (f *filter) enter(ctx context.Context, s *set) error {
	select {
	case f.instant <- struct{}{}:
		f.mu.Lock()
		defer f.mu.Unlock()
		f.owner = s
		return nil
	case <-ctx.Done():
		return problem.New(problem.Busy, "", fmt.Errorf("another snapshot of the volume is being taken: %w", ctx.Err()))
	}
}

// leave is for the set that entered. Who still waits goes on.
func (f *filter) leave(s *set) error {
	err := f.open(s, nil)
	f.mu.Lock()
	f.owner = nil
	f.mu.Unlock()
	<-f.instant
	return err
}

// set is called with mu held.
func (f *filter) set(shields []*shield.Shield) {
	f.shields = shields
	f.armed.Store(&shields)
}

// hold puts an event into the queue of those that wait for the instant. It is
// called with mu held.
func (f *filter) hold(e fanotify.Event) {
	f.queue.Lock()
	defer f.queue.Unlock()
	f.held = append(f.held, e)
	if f.events.Short() {
		f.owner.p.crowds.disperse()
	}
}

// track arms the filter. It notes from now on who maps a file. Before that,
// ignore ends the events of files that must not have any.
func (f *filter) track(ignore func()) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state, f.mapped = tracking, map[uint64]bool{}
	f.pulse.arm(true)
	f.popularity.forget()
	if err := f.events.HeedAll(); err != nil {
		return err
	}
	ignore()
	return f.events.Arm(f.root)
}

func (f *filter) note(number uint64) {
	f.queue.Lock()
	defer f.queue.Unlock()
	f.mapped[number] = true
}

// shut lets no change pass any more, and returns who was noted. Who was
// answered before is past the filter.
func (f *filter) shut() map[uint64]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = gated
	f.pulse.shut()
	return f.mapped
}

// open lets everybody go on, if the gate is that of s. With a shield, what they
// may change is saved first, and so is everything from now on.
func (f *filter) open(s *set, added *shield.Shield) error {
	f.mu.Lock()
	if f.owner != s {
		f.mu.Unlock()
		return nil
	}
	if added != nil {
		f.set(append(slices.Clone(f.shields), added))
	}
	if f.state == passing && added == nil {
		f.mu.Unlock()
		return nil
	}
	f.state = passing
	f.pulse.opened()
	f.queue.Lock()
	held := f.held
	f.held = nil
	f.queue.Unlock()
	shields := f.shields
	var err error
	if len(shields) == 0 {
		err = f.disarm()
	}
	f.mu.Unlock()
	// Who comes now finds the new shields, so these can be answered at leisure.
	// No shield can be taken away meanwhile.
	f.mu.RLock()
	defer f.mu.RUnlock()
	var wait sync.WaitGroup
	for part := range slices.Chunk(held, max(1, (len(held)+listeners-1)/listeners)) {
		wait.Go(func() {
			for _, e := range part {
				f.save(&access{Event: e}, shields)
				_ = f.events.Allow(e)
			}
		})
	}
	wait.Wait()
	return err
}

// remove takes a shield away.
func (f *filter) remove(s *shield.Shield) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set(slices.DeleteFunc(slices.Clone(f.shields), func(o *shield.Shield) bool { return o == s }))
	if len(f.shields) > 0 || f.state != passing {
		return nil
	}
	return f.disarm()
}

// waiting tells which threads wait at the gate.
func (f *filter) waiting() map[int]bool {
	f.queue.Lock()
	defer f.queue.Unlock()
	tids := map[int]bool{}
	for _, e := range f.held {
		tids[int(e.TID)] = true
	}
	return tids
}
