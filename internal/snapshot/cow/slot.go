package cow

import (
	"slices"
	"time"

	"stillpoint/internal/sys/fanotify"
)

// A slot is what one goroutine works on. It belongs to the turns.
type slot struct {
	listens bool // it reads events, and else answers some that were
	stage   stage
	since   time.Time // unless idle
	event   fanotify.Event
	turn    *turn // that it works by; nil: none
	clear   bool  // what the gate had to know of its event is known
}

// A stage is how far a slot has come with its event.
type stage int

const (
	idle     stage = iota // there is none
	working               // somebody waits for the answer
	late                  // whose answer the watch is giving
	out                   // has given; nobody waits for the slot any more
	answered              // it gives the answer itself, or has; what follows, nobody waits for
)

// nobody is the event of a slot that works without one.
var nobody = fanotify.Event{FD: -1}

func (ts *turns) add(s *slot) *slot {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.slots = append(ts.slots, s)
	return s
}

func (ts *turns) remove(s *slot) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.drop(s)
}

// drop is called with mu held.
func (ts *turns) drop(s *slot) {
	ts.slots = slices.DeleteFunc(ts.slots, func(o *slot) bool { return o == s })
	ts.changed.Broadcast()
}

// begin is for an event that was just read. Its time began when it can have come
// at the earliest.
func (ts *turns) begin(s *slot, e fanotify.Event) *turn {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.taken++
	return ts.start(s, e, ts.queue.came(ts.taken, time.Now()))
}

// work is for what nobody waits for.
func (ts *turns) work(s *slot) *turn {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.start(s, nobody, time.Now())
}

// start is called with mu held.
func (ts *turns) start(s *slot, e fanotify.Event, since time.Time) *turn {
	s.event, s.since, s.stage, s.clear = e, since, working, false
	return ts.enter(s)
}

// cleared is for who knows of an event what the gate has to. Of a late one the
// watch has looked at that already.
func (ts *turns) cleared(s *slot) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if s.stage == working {
		s.clear = true
	}
}

// take is true for who is to answer the event, and is asked before that. When it
// is false, the event is answered.
func (ts *turns) take(s *slot) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.mine(s)
}

// mine is called with mu held. The watch answers by the number of a descriptor,
// so nobody may close that before it has.
func (ts *turns) mine(s *slot) bool {
	for s.stage == late {
		ts.changed.Wait()
	}
	if s.stage != working {
		return false
	}
	s.stage, s.since = answered, time.Now()
	return true
}

// hold keeps the event of a slot at the gate. When the gate has been opened
// meanwhile, it is to be looked at again, by the turn that hold returns.
func (ts *turns) hold(s *slot) (again *turn, held bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if s.stage == working && ts.now.state != gated {
		ts.exit(s)
		return ts.enter(s), false
	}
	if !ts.mine(s) {
		return nil, false
	}
	ts.held = append(ts.held, s.event)
	return nil, true
}

// end is for who has done all that the turn has to do with.
func (ts *turns) end(s *slot) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for s.stage == late {
		ts.changed.Wait()
	}
	ts.exit(s)
	s.stage, s.since = answered, time.Now()
	ts.changed.Broadcast()
}

// rest is for who has nothing to do any more.
func (ts *turns) rest(s *slot) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	s.stage = idle
}

// late returns the slots that keep somebody waiting for too long. They are not
// to answer any more.
func (ts *turns) late(now time.Time) (all []*slot) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, s := range ts.slots {
		if s.stage == working && now.Sub(s.since) >= limit {
			s.stage = late
			all = append(all, s)
		}
	}
	return all
}

// countOut is for a late slot whose event is answered.
func (ts *turns) countOut(s *slot) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	s.stage = out
	s.turn.working--
	ts.changed.Broadcast()
}

// free is how many listeners are not stuck, as far as that can be told. It is
// called with mu held.
func (ts *turns) free(now time.Time) (n int) {
	for _, s := range ts.slots {
		if s.listens && (s.stage == idle || now.Sub(s.since) < tick) {
			n++
		}
	}
	return n
}

// missing is how many listeners are to be started when so many events wait.
func (ts *turns) missing(now time.Time, waiting int) int {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	there := 0
	for _, s := range ts.slots {
		if s.listens {
			there++
		}
	}
	return max(0, min(listeners-ts.free(now)+waiting, ts.most-there))
}

// spare tells whether there are listeners enough without this one, which then is
// none any more. Another slot is that of savePopular.
func (ts *turns) spare(s *slot) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if len(ts.slots) <= listeners+1 || ts.free(time.Now()) <= listeners {
		return false
	}
	ts.drop(s)
	return true
}

// oldest is since when somebody waits for a slot that is longest in work.
func (ts *turns) oldest(now time.Time) time.Time {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, s := range ts.slots {
		if (s.stage == working || s.stage == late) && s.since.Before(now) {
			now = s.since
		}
	}
	return now
}
