package zfs

import "time"

// turns are those of other sets that are worth their end by themselves: they go first, and
// what ours keeps is counted without them after. One that cannot end, since a file of it
// is open or its process is stopped, has had its turn all the same: who writes waits for
// nobody.
type turns map[string]turn

// A turn is over after owedMost, since one that was given up is tried to be ended as often.
// It goes from the first look to the last one at which the set was worth its end.
type turn struct{ since, last time.Time }

// take is one look, at which it is the turn of some sets. It tells whose is over, and
// whether one goes on. When time presses there are none.
func (t *turns) take(now time.Time, worth []string, pressing bool) (over map[string]bool, on bool) {
	if *t == nil {
		*t = turns{}
	}
	for _, set := range worth {
		since := now
		if was, ok := (*t)[set]; ok {
			since = was.since
		}
		(*t)[set] = turn{since, now}
	}
	over = map[string]bool{}
	for set, of := range *t {
		switch {
		case now.Sub(of.last) >= lookBack:
			delete(*t, set) // there was room meanwhile, or it has ended
		case pressing, now.Sub(of.since) >= owedMost:
			over[set] = true
		case of.last.Equal(now):
			on = true
		}
	}
	return over, on
}
