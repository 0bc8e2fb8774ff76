package cow

import (
	"slices"
	"sync"
	"time"

	"stillpoint/internal/sys/fanotify"
)

// limit is the longest that anybody waits for an answer outside of the gate.
// It is longer than patience, which a device that does not answer at all does
// not keep.
const limit = 900 * time.Millisecond

// A slot says what one listener works on.
type slot struct {
	mu     sync.Mutex
	event  fanotify.Event
	since  time.Time // zero: it is answered, or there is none
	events int64     // that there were
}

func (s *slot) begin(e fanotify.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.event, s.since = e, time.Now()
	s.events++
}

// take is true for the one who is to answer the event.
func (s *slot) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := !s.since.IsZero()
	s.since = time.Time{}
	return mine
}

// late takes the event if it is in work for too long.
func (s *slot) late(now time.Time) (fanotify.Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() || now.Sub(s.since) < limit {
		return fanotify.Event{}, false
	}
	s.since = time.Time{}
	return s.event, true
}

// watch gives files up that keep somebody waiting for too long, and puts another
// listener in the place of the one that is stuck. It ends with the filter.
func (f *filter) watch() {
	tick := time.NewTicker(limit / 9)
	defer tick.Stop()
	for {
		select {
		case <-f.quit:
			return
		case now := <-tick.C:
			for _, s := range f.slots() {
				if e, late := s.late(now); late {
					f.giveUp(e)
					if len(f.slots()) < manyListeners {
						f.startListener()
					}
				}
			}
			f.goRound()
		}
	}
}

// manyListeners is how many there can be when all of them are stuck.
const manyListeners = 256

func (f *filter) slots() []*slot {
	f.workers.Lock()
	defer f.workers.Unlock()
	return slices.Clone(f.working)
}

// giveUp lets one go on whose file could not be saved in time. It does not wait
// for who works on that: they hold the lock.
func (f *filter) giveUp(e fanotify.Event) {
	a := &access{Event: e}
	for _, s := range *f.armed.Load() {
		s.GiveUp(a.number())
	}
	_ = f.events.Allow(e)
}

// lose gives all snapshots of the volume up. It does not wait for who works:
// they hold the lock.
func (f *filter) lose(err error) {
	for _, s := range *f.armed.Load() {
		s.Lose(err)
	}
}
