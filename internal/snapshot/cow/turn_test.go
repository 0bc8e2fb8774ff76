package cow

import (
	"testing"
	"testing/synctest"
	"time"

	"stillpoint/internal/sys/fanotify"
)

// Who changes what becomes of events waits for those who began before, not for
// those who begin after, nor for those who are counted out.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTurns()
		early, stuck, later := ts.add(&slot{}), ts.add(&slot{}), ts.add(&slot{})
		ts.begin(early, nobody)
		ts.begin(stuck, nobody)
		next, _ := ts.next(func(t *turn) bool { t.state = tracking; return true })
		if got := ts.begin(later, nobody); got != next {
			t.Errorf("what begins later works by turn %d", got.number)
		}
		settled := false
		go func() {
			ts.settled(next)
			settled = true
		}()
		synctest.Wait()
		if !ts.take(early) || settled {
			t.Error("it did not wait")
		}
		ts.end(early)
		synctest.Wait()
		if settled {
			t.Error("it did not wait for the second one")
		}
		time.Sleep(limit)
		ts.take(later)
		late := ts.late(time.Now())
		if len(late) != 1 || late[0] != stuck {
			t.Fatalf("late are %d", len(late))
		}
		returned := false
		go func() {
			if ts.take(stuck) {
				t.Error("two answer one event")
			}
			ts.end(stuck)
			returned = true
		}()
		synctest.Wait()
		if returned || settled {
			t.Error("a descriptor is closed that the watch is about to answer by")
		}
		ts.countOut(stuck)
		synctest.Wait()
		if !returned || !settled {
			t.Errorf("returned %t, settled %t", returned, settled)
		}
		if len(ts.past) != 0 {
			t.Errorf("%d old turns are kept", len(ts.past))
		}
	})
}

// Whose event is for the gate while it opens, is not forgotten at it.
func TestHoldAtOpenGate(t *testing.T) {
	ts := newTurns()
	s, o := ts.add(&slot{}), ts.add(&slot{})
	ts.next(func(t *turn) bool { t.state = gated; return true })
	ts.begin(s, fanotify.Event{FD: 7})
	ts.begin(o, fanotify.Event{FD: 8})
	if _, held := ts.hold(o); !held || len(ts.held) != 1 {
		t.Error("it is not held")
	}
	open, _ := ts.next(func(t *turn) bool { t.state = passing; return true })
	again, held := ts.hold(s)
	if held || again != open || s.turn != open || open.working != 1 {
		t.Errorf("held %t, again %+v", held, again)
	}
	if !ts.take(s) {
		t.Error("nobody answers it")
	}
	ts.end(s)
	ts.end(o)
	if len(ts.past) != 0 || open.users != 0 {
		t.Error("somebody works by a turn still")
	}
}

func TestQueue(t *testing.T) {
	var q queue
	began := time.Now()
	at := func(n int) time.Time { return began.Add(time.Duration(n) * tick) }
	for i, c := range []struct {
		taken, unread int64
		waited        int
	}{
		{0, 0, 0},   // nobody
		{10, 5, 0},  // five came
		{12, 10, 1}, // and are not all read after a round
		{15, 10, 1}, // now they are, others not
		{15, 10, 2},
		{15, 10, 3},
		{40, 3, 0}, // all that were there then
		{40, 0, 0},
	} {
		if got := q.look(at(i), c.taken, c.unread); got != c.waited {
			t.Errorf("round %d: they wait for %d rounds, not %d", i, c.waited, got)
		}
		switch i {
		case 1:
			if got := q.came(15, at(2)); got != at(0) {
				t.Errorf("the last of them came at %v", got.Sub(began))
			}
			if got := q.came(16, at(2)); got != at(2) {
				t.Errorf("the next one came at %v", got.Sub(began))
			}
		}
	}
}
