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
func (f *filter) enter(ctx context.Context) error {
	select {
	case f.instant <- struct{}{}:
		return nil
	case <-ctx.Done():
		return problem.New(problem.Busy, "", fmt.Errorf("another snapshot of the volume is being taken: %w", ctx.Err()))
	}
}

// leave is for the set that entered. Who still waits goes on.
func (f *filter) leave() error {
	var err error
	if f.shutNow() {
		err = f.open(nil)
	}
	<-f.instant
	return err
}

func (f *filter) shutNow() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.state != passing
}

// set is called with mu held.
func (f *filter) set(shields []*shield.Shield) {
	f.shields = shields
	f.armed.Store(&shields)
}

// hold puts an event into the queue of those that wait for the instant.
func (f *filter) hold(e fanotify.Event) {
	f.queue.Lock()
	defer f.queue.Unlock()
	f.held = append(f.held, e)
}

// track arms the filter. It notes from now on who maps a file.
func (f *filter) track() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state, f.mapped = tracking, map[uint64]bool{}
	f.popularity.forget()
	if err := f.events.HeedAll(); err != nil {
		return err
	}
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
	return f.mapped
}

// open lets everybody go on. With a shield, what they may change is saved
// first, and so is everything from now on.
func (f *filter) open(added *shield.Shield) error {
	f.mu.Lock()
	if added != nil {
		f.set(append(slices.Clone(f.shields), added))
	}
	f.state = passing
	f.queue.Lock()
	held := f.held
	f.held = nil
	f.queue.Unlock()
	shields := f.shields
	var err error
	if len(shields) == 0 {
		err = f.events.Disarm(f.root)
	}
	f.mu.Unlock()
	// Who comes now finds the new shields, so these can be answered at leisure.
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
	return f.events.Disarm(f.root)
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
