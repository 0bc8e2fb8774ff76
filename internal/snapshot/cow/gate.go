package cow

import (
	"context"
	"fmt"
	"slices"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/cow/shield"
	"stillpoint/internal/sys/fanotify"
)

// enter lets one set at a time be at its instant.
func (f *filter) enter(ctx context.Context, s *set) error {
	select {
	case f.instant <- struct{}{}:
		f.turns.next(func(t *turn) bool { t.owner = s; return true })
		return nil
	case <-ctx.Done():
		return problem.New(problem.Busy, "", fmt.Errorf("another snapshot of the volume is being taken: %w", ctx.Err()))
	}
}

// leave is for the set that entered. Who still waits goes on.
func (f *filter) leave(s *set) error {
	err := f.open(s, nil)
	f.turns.next(func(t *turn) bool { t.owner = nil; return true })
	<-f.instant
	return err
}

// arm lets events come if they are needed as things are now, and else none.
func (f *filter) arm() error {
	f.marks.Lock()
	defer f.marks.Unlock()
	if t := f.turns.current(); len(t.shields) > 0 || t.state != passing {
		f.pulse.arm(true)
		return f.events.Arm(f.root)
	}
	err := f.events.Disarm(f.root)
	if err == nil {
		f.pulse.arm(false)
	}
	return err
}

// track arms the filter. It notes from now on who maps a file. Before that,
// ignore ends the events of files that must not have any.
func (f *filter) track(ignore func()) error {
	f.notes.Lock()
	f.mapped = map[uint64]bool{}
	f.notes.Unlock()
	t, _ := f.turns.next(func(t *turn) bool { t.state = tracking; return true })
	f.turns.settled(t) // who is ignored from now on, is not by anybody's late word
	f.popularity.forget()
	if err := f.events.HeedAll(); err != nil {
		return err
	}
	ignore()
	return f.arm()
}

func (f *filter) note(number uint64) {
	f.notes.Lock()
	defer f.notes.Unlock()
	if f.mapped != nil {
		f.mapped[number] = true
	}
}

// shut lets no change pass any more, and returns who was noted. Who was
// answered before is past the filter.
func (f *filter) shut() map[uint64]bool {
	f.pulse.shut()
	t, _ := f.turns.next(func(t *turn) bool { t.state = gated; return true })
	f.turns.settled(t)
	f.notes.Lock()
	defer f.notes.Unlock()
	noted := f.mapped
	f.mapped = nil
	return noted
}

// open lets everybody go on, if the gate is that of s. With a shield, what they
// may change is saved first, and so is everything from now on. It waits for
// those who were at the gate, and they for limit at most.
func (f *filter) open(s *set, added *shield.Shield) error {
	t, opened := f.turns.next(func(t *turn) bool {
		if t.owner != s || t.state == passing && added == nil {
			return false
		}
		t.state = passing
		if added != nil {
			t.shields = append(slices.Clone(t.shields), added)
		}
		return true
	})
	if !opened {
		return nil
	}
	f.pulse.opened()
	f.answerHeld()
	if added != nil {
		f.turns.settled(t)
	}
	return f.arm()
}

// answerHeld saves what those may change who were at the gate, and lets them go
// on. For who is left when the time of all of them is over, the watch does.
func (f *filter) answerHeld() {
	var workers []*slot
	for range min(listeners, f.turns.openHeld(time.Now())) {
		s := f.turns.add(&slot{})
		workers = append(workers, s)
		f.ended.Go(func() {
			defer f.turns.remove(s)
			for {
				e, t, some := f.turns.nextHeld(s)
				if !some {
					return
				}
				f.handle(e, s, t)
			}
		})
	}
	// Not for who has answered: what he closes can be the last of a file that was
	// deleted by somebody who was killed at the gate, and then waits for the thaw.
	f.turns.until(func() bool {
		return len(f.turns.opening) == 0 &&
			!slices.ContainsFunc(workers, func(s *slot) bool { return s.stage != out && s.turn != nil })
	})
}

// openHeld returns how many wait that were held.
func (ts *turns) openHeld(now time.Time) int {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, e := range ts.held {
		ts.opening = append(ts.opening, waiter{e, now})
	}
	ts.held = nil
	return len(ts.opening)
}

// nextHeld begins the next one of those who were held.
func (ts *turns) nextHeld(s *slot) (fanotify.Event, *turn, bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if len(ts.opening) == 0 {
		return nobody, nil, false
	}
	w := ts.opening[0]
	ts.opening = ts.opening[1:]
	return w.event, ts.start(s, w.event, w.since), true
}

// due takes those who were held and whose time is over, and returns the turn that
// it is.
func (ts *turns) due(now time.Time) (events []fanotify.Event, t *turn) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for len(ts.opening) > 0 && now.Sub(ts.opening[0].since) >= limit {
		events = append(events, ts.opening[0].event)
		ts.opening = ts.opening[1:]
	}
	ts.changed.Broadcast()
	return events, ts.now
}

// allHeld takes all who were held, or are.
func (ts *turns) allHeld() []fanotify.Event {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	events := ts.held
	for _, w := range ts.opening {
		events = append(events, w.event)
	}
	ts.held, ts.opening = nil, nil
	ts.changed.Broadcast()
	return events
}

// remove takes a shield away. When somebody who is stuck may still use it, wait
// waits for him, and else is nil.
func (f *filter) remove(s *shield.Shield) (wait func(), err error) {
	t, _ := f.turns.next(func(t *turn) bool {
		t.shields = slices.DeleteFunc(slices.Clone(t.shields), func(o *shield.Shield) bool { return o == s })
		return true
	})
	f.turns.settled(t)
	unused := func() bool {
		return !slices.ContainsFunc(f.turns.past, func(p *turn) bool { return slices.Contains(p.shields, s) })
	}
	f.turns.mu.Lock()
	if !unused() {
		wait = func() { f.turns.until(unused) }
	}
	f.turns.mu.Unlock()
	return wait, f.arm()
}

// waiting tells which threads wait at the gate.
func (f *filter) waiting() map[int]bool {
	f.turns.mu.Lock()
	defer f.turns.mu.Unlock()
	tids := map[int]bool{}
	for _, e := range f.turns.held {
		tids[int(e.TID)] = true
	}
	return tids
}

// held is how many do.
func (f *filter) held() int {
	f.turns.mu.Lock()
	defer f.turns.mu.Unlock()
	return len(f.turns.held)
}
