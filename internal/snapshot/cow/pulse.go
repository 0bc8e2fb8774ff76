package cow

import (
	"sync/atomic"
	"time"

	"stillpoint/internal/holder"
)

// A pulse says whether a filter lives, to who would end it else: it can be asked
// without any lock, which might be what it hangs on.
type pulse struct {
	ticked  atomic.Int64 // when the watch last went round and found nobody who waits for too long, in ns since pulseEpoch; 0 before
	gate    atomic.Int64 // since when the gate is shut; 0 while it is open
	armed   atomic.Bool
	highest atomic.Int32 // descriptor of an event so far
}

// pulseEpoch is what times are counted from.
var pulseEpoch = time.Now()

func pulseTime() int64 { return int64(time.Since(pulseEpoch)) + 1 }

// staleSign is how old a sign of life may be. Together with the time of who waits
// for it, it must stay well below what anybody may wait for an answer.
const staleSign = 4 * tick

// overtime is how long a gate may stay shut after its window, when those at it
// should long have been let go on.
const overtime = 500 * time.Millisecond

func (p *pulse) shut()       { p.gate.Store(pulseTime()) }
func (p *pulse) opened()     { p.gate.Store(0) }
func (p *pulse) wentRound()  { p.ticked.Store(pulseTime()) }
func (p *pulse) arm(is bool) { p.armed.Store(is) }
func (p *pulse) saw(fd int32) { // one of several at a time
	for {
		was := p.highest.Load()
		if fd <= was || p.highest.CompareAndSwap(was, fd) {
			return
		}
	}
}

// well tells whether the filter goes round, answers, and has not forgotten its
// gate.
func (p *pulse) well() bool {
	at := pulseTime()
	since := func(of *atomic.Int64) time.Duration {
		if then := of.Load(); then > 0 {
			return time.Duration(at - then)
		}
		return 0
	}
	return since(&p.ticked) <= staleSign && since(&p.gate) <= window+overtime
}

// well tells whether all filters of a set are.
func (s *set) well() bool {
	for _, t := range s.targets {
		if !t.filter.pulse.well() {
			return false
		}
	}
	return true
}

// Pulse tells how the filters are.
func (p *Provider) Pulse() holder.Pulse {
	all := holder.Pulse{Well: true}
	for _, f := range *p.legacy.living.Load() {
		all.Well = all.Well && f.pulse.well()
		all.Armed = all.Armed || f.pulse.armed.Load()
		all.Highest = max(all.Highest, int(f.pulse.highest.Load()))
	}
	return all
}
