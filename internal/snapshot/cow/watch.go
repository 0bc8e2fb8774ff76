package cow

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/cow/shield"
	"stillpoint/internal/sys/fanotify"
)

// limit is the longest that anybody waits for an answer outside of the gate,
// but for two ticks: one until it is known that he waits, and one until the
// watch comes round. It is longer than patience, which a device that does not
// answer at all does not keep.
const limit = 850 * time.Millisecond

// tick is the time between two rounds of the watch.
const tick = 50 * time.Millisecond

// manyListeners is how many there can be when all of them are stuck. Each may
// take a descriptor to wait at, of which there must always be some for events.
func manyListeners() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 2 * listeners
	}
	return int(max(2*listeners, min(256, l.Cur/16)))
}

// For so many rounds of the watch an event may be unread that was there at all
// of them.
const (
	slowly = 1  // then there are more listeners
	hardly = 10 // then the snapshots of the volume are given up
	never  = 20 // then the guard ends us
)

// watch sees to it that nobody waits for too long for a filter, whoever is stuck.
// It never waits itself, and ends with the filter.
func (f *filter) watch() {
	rounds := time.NewTicker(tick)
	defer rounds.Stop()
	for {
		select {
		case <-f.quit:
			return
		case <-rounds.C:
			now := time.Now()
			waited := f.round(now)
			if waited < never && now.Sub(f.turns.oldest(now)) < heart {
				f.pulse.wentRound()
			}
		}
	}
}

func (f *filter) round(now time.Time) (waited int) {
	for _, s := range f.turns.late(now) {
		f.giveUp(s)
	}
	f.letGoDue(now)
	unread, err := f.events.Unread()
	if err != nil {
		return 0 // it is closed
	}
	waited = f.turns.look(now, unread)
	if waited < slowly {
		unread = 0
	}
	if waited >= hardly {
		f.abandon()
	}
	for range f.turns.missing(now, unread) {
		f.startListener()
	}
	return waited
}

// look notes how many events are unread.
func (ts *turns) look(now time.Time, unread int) (waited int) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.queue.look(now, ts.taken, int64(unread))
}

// giveUp lets one go on whose file could not be saved in time, or of whom it
// could not be told in time what he does. It does not wait for who works on
// that, who then closes the descriptor, and does no more.
func (f *filter) giveUp(s *slot) {
	defer f.turns.countOut(s)
	if s.event.FD < 0 {
		return
	}
	a := &access{Event: s.event}
	for _, sh := range s.turn.shields {
		sh.GiveUp(a.number())
	}
	if s.turn.state != passing && !s.clear {
		s.turn.spoil(problem.Newf(problem.FreezeBlocked, "",
			"what a thread (%d) does could not be found out within %s, so it was let go on", s.event.TID, limit))
	}
	_ = f.events.Answer(s.event)
}

// spoil gives the set up that is at its instant.
func (t *turn) spoil(err error) {
	if t.state != passing && t.owner != nil {
		t.owner.spoil(err)
	}
}

// letGoDue lets those go on who were at the gate and whose time is over. By now
// it may be shut again.
func (f *filter) letGoDue(now time.Time) {
	events, t := f.turns.due(now)
	if len(events) > 0 {
		t.spoil(problem.New(problem.FreezeBlocked, "", errUnsaved))
	}
	f.letGo(events, t.shields)
}

var errUnsaved = fmt.Errorf("what waited for an earlier instant could not be saved within %s, so it was let go on", limit)

// letGo answers events that nobody else does, whose files are given up. What
// their descriptors are the last of may wait for a thaw.
func (f *filter) letGo(events []fanotify.Event, shields []*shield.Shield) {
	if len(events) == 0 {
		return
	}
	for _, e := range events {
		a := &access{Event: e}
		for _, s := range shields {
			s.GiveUp(a.number())
		}
		_ = f.events.Answer(e)
	}
	f.ended.Go(func() {
		for _, e := range events {
			f.events.Drop(e)
		}
	})
}

var errUnread = fmt.Errorf("accesses to the volume were not answered for %v, so everybody was let go on", hardly*tick)

// abandon gives all snapshots of the volume up, and the one that is being taken:
// nobody reads the events any more, which have no other clock. Those who come to
// read them again have nothing to save.
func (f *filter) abandon() {
	_, begun := f.turns.next(func(t *turn) bool {
		if len(t.shields) == 0 && t.state == passing {
			return false
		}
		for _, s := range t.shields {
			s.Lose(errUnread)
		}
		t.spoil(problem.New(problem.FreezeBlocked, "", errUnread))
		t.shields, t.state = nil, passing
		f.turns.most += listeners
		return true
	})
	if !begun {
		return
	}
	f.pulse.opened()
	f.letGo(f.turns.allHeld(), nil)
	f.ended.Go(func() { _ = f.arm() })
}

// lose gives all snapshots of the volume up.
func (f *filter) lose(err error) {
	for _, s := range f.turns.current().shields {
		s.Lose(err)
	}
}

// errStuck is the error of who ends something that somebody is stuck in.
var errStuck = errors.New("who saves a file of the volume does not come back from the kernel: what he needs goes when he does")
