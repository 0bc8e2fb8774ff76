package cow

import "time"

// A queue tells how long events wait that nobody has read. The kernel does not
// say since when they do, only how many there are. But they are read in the
// order in which they came: so what was there at a look has been read when as
// many were read since.
//
// Of events whose threads were killed it learns with the next look that finds
// none, or fewer.
type queue struct {
	looks []look // those at which there were events that are not read, oldest first
}

type look struct {
	at   time.Time
	came int64 // events by then
}

// longQueue is how many looks are kept.
const longQueue = 100

// look is called once in each tick with how many were read by then and how many
// were not. It returns at how many looks before there were some that are still
// not read.
func (q *queue) look(now time.Time, taken, unread int64) (waited int) {
	if unread == 0 {
		q.looks = q.looks[:0]
		return 0
	}
	read := 0
	for read < len(q.looks) && q.looks[read].came <= taken {
		read++
	}
	q.looks = append(q.looks[:0], q.looks[read:]...)
	waited = len(q.looks)
	if waited < longQueue {
		q.looks = append(q.looks, look{now, taken + unread})
	}
	return waited
}

// came is when the event can have come at the earliest that was read as the n-th.
func (q *queue) came(n int64, now time.Time) time.Time {
	for _, l := range q.looks {
		if l.came >= n {
			return l.at.Add(-tick)
		}
	}
	return now
}
