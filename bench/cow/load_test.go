//go:build bench

package cow_test

import (
	"fmt"
	"os"
	"time"

	"stillpoint/internal/snapshot"
)

// How long it is measured under a load, and what comes before and between.
const (
	warm     = 2 * time.Second // before the instant
	first    = 3 * time.Second // from the call of hold on
	saving   = 5 * time.Second // after that, for what is hot to be saved
	later    = 3 * time.Second // then
	spare    = 2 * time.Second // for preparing, and at the end
	loadTime = warm + first + saving + later + spare
)

// A sample is how many operations had ended at a moment since the sample before it.
type sample struct {
	at   time.Time
	done float64
}

// rate is how many operations ended in a second.
func rate(all []sample, from time.Time, length time.Duration) float64 {
	var done float64
	for _, s := range all {
		if s.at.After(from) && !s.at.After(from.Add(length)) {
			done += s.done
		}
	}
	return done / length.Seconds()
}

// A load is a program that works on the volume for loadTime.
type load struct {
	name, unit string
	start      func() (wait func() []sample)
}

// underLoad measures what a load does with a snapshot and without a filter. On
// both sides it runs from before the instant on, and through all of it.
func (r *rig) underLoad(l load) {
	r.Helper()
	r.inTurn(func() {
		wait := l.start()
		time.Sleep(warm)
		r.noteLoad(l, without, time.Now(), wait())
	}, func() {
		r.watched(func() {
			wait := l.start()
			time.Sleep(warm)
			pending := r.prepare(".")
			began := time.Now()
			r.held(pending, func(s snapshot.Snapshot) {
				time.Sleep(time.Until(began.Add(first + saving)))
				saved := cached(s)
				samples := wait()
				fmt.Fprintf(os.Stderr, "%s: %d MiB saved at first, %d MiB then\n", l.name, saved>>20, (cached(s)-saved)>>20)
				r.noteLoad(l, with, began, samples)
			})
		})
	})
}

func (r *rig) noteLoad(l load, side int, began time.Time, all []sample) {
	for _, w := range []struct {
		name         string
		from, length time.Duration
		goal         goal
	}{
		{"in the first second", 0, time.Second, goal{}},
		{"in the first 3 s", 0, first, goal{least: 0.5, ratio: true}},
		{"once hot files are saved", first + saving, later, goal{least: 0.8, ratio: true}},
	} {
		m := measure{name: l.name + ", " + w.name, unit: l.unit, goal: w.goal}
		r.note(m, side, rate(all, began.Add(w.from), w.length))
	}
}
