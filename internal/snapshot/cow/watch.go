package cow

import (
	"errors"
	"sync"
	"time"

	"stillpoint/internal/sys/fanotify"
)

// limit is the longest that anybody waits for an answer outside of the gate.
// It is longer than patience, which a device that does not answer at all does
// not keep.
const limit = 900 * time.Millisecond

// errSlow is why snapshots are lost whose shields did not let go in time.
var errSlow = errors.New("an original could not be saved in time, and the live system was not kept waiting")

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

// watch gives the snapshots up whose shields keep somebody waiting for too
// long. It ends with the filter.
func (f *filter) watch() {
	tick := time.NewTicker(limit / 9)
	defer tick.Stop()
	for {
		select {
		case <-f.quit:
			return
		case now := <-tick.C:
			for i := range f.working {
				if e, late := f.working[i].late(now); late {
					f.lose(errSlow)
					_ = f.events.Allow(e)
				}
			}
		}
	}
}

// lose gives all snapshots of the volume up. It does not wait for who works:
// they hold the lock.
func (f *filter) lose(err error) {
	for _, s := range *f.armed.Load() {
		s.Lose(err)
	}
}
