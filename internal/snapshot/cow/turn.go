package cow

import (
	"sync"
	"time"

	"stillpoint/internal/snapshot/cow/shield"
	"stillpoint/internal/sys/fanotify"
)

// A turn says what becomes of events for a while. It does not change, but for
// who works by it; another one follows it.
type turn struct {
	number  uint64
	state   state
	owner   *set // at its instant
	shields []*shield.Shield

	users   int // who works by it
	working int // of these, those who are not counted out
}

// A state says what becomes of an event.
type state int

const (
	passing  state = iota // it is answered; what the shields need is saved before
	tracking              // the same, and new mappings are noted
	gated                 // changes wait for the end of the gate
)

// turns let what becomes of events change while they are answered. Who answers
// one never waits for who changes that: it works by the turn that it began with
// to its end. Who changes lets a new turn begin, and can wait until nobody works
// by an older one; those who are stuck are counted out by the watch, so that
// this has an end.
type turns struct {
	// mu is held for moments: nobody asks the kernel for anything meanwhile.
	mu      sync.Mutex
	changed *sync.Cond // whatever somebody may wait for

	now   *turn
	past  []*turn // that somebody works by
	slots []*slot
	most  int // how many listeners there can be

	taken   int64 // events that were read
	queue   queue // those that were not
	held    []fanotify.Event
	opening []waiter // were held, and are to be answered
}

// A waiter was held at the gate.
type waiter struct {
	event fanotify.Event
	since time.Time // the gate is open
}

func newTurns() *turns {
	ts := &turns{now: &turn{}, most: manyListeners()}
	ts.changed = sync.NewCond(&ts.mu)
	return ts
}

// current is the turn by which events are answered that begin now.
func (ts *turns) current() *turn {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.now
}

// next begins a new turn, which change makes of the current one. It waits for
// nobody, and nothing happens when change says so.
func (ts *turns) next(change func(*turn) bool) (t *turn, begun bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	n := *ts.now
	n.number, n.users, n.working = n.number+1, 0, 0
	if !change(&n) {
		return ts.now, false
	}
	if ts.now.users > 0 {
		ts.past = append(ts.past, ts.now)
	}
	ts.now = &n
	return ts.now, true
}

// until waits until something is so, which is asked with mu held.
func (ts *turns) until(so func() bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for !so() {
		ts.changed.Wait()
	}
}

// settled waits until nobody works by a turn before t, but for those who are
// counted out.
func (ts *turns) settled(t *turn) {
	ts.until(func() bool {
		for _, p := range ts.past {
			if p.number < t.number && p.working > 0 {
				return false
			}
		}
		return true
	})
}

// enter is called with mu held.
func (ts *turns) enter(s *slot) *turn {
	s.turn = ts.now
	s.turn.users++
	s.turn.working++
	return s.turn
}

// exit is called with mu held.
func (ts *turns) exit(s *slot) {
	t := s.turn
	s.turn = nil
	t.users--
	if s.stage != out {
		t.working--
	}
	if t.users == 0 {
		for i, p := range ts.past {
			if p == t {
				ts.past = append(ts.past[:i:i], ts.past[i+1:]...)
				break
			}
		}
	}
	if t != ts.now {
		ts.changed.Broadcast()
	}
}
