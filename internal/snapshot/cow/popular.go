package cow

import (
	"context"
	"sync"
	"time"

	"stillpoint/internal/snapshot/cow/shield"
)

// A file whose events have cost as much as copying all of it is saved whole, so
// that it makes no more: that way it never costs more than twice what the better
// choice would have cost.
const (
	eventCost = 32 << 10 // bytes that are copied in the time that an event takes
	often     = 32       // events between two looks at that
	dispensed = 4        // events after which a file that needs no saving makes no more
)

// A popularity counts the events of files, from before the instant on: those cost
// as much, and tell as well which files will be popular.
type popularity struct {
	mu     sync.Mutex
	events map[uint64]int64
	wanted chan uint64 // files to be saved whole
}

func newPopularity() popularity {
	return popularity{events: map[uint64]int64{}, wanted: make(chan uint64, 256)}
}

// count counts an event of a file of which so many bytes are not saved. It is
// true when there should be no more events of it. A file that cannot be taken
// on now will be asked for again.
func (p *popularity) count(number uint64, unsaved int64) (enough bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events[number]++
	n := p.events[number]
	if unsaved > 0 && n%often == 0 && n*eventCost >= unsaved {
		select {
		case p.wanted <- number:
		default:
		}
	}
	return unsaved == 0 && n >= dispensed
}

func (p *popularity) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.events)
}

// savePopular saves popular files whole. It ends with the filter.
func (f *filter) savePopular() {
	s := f.turns.add(&slot{})
	defer f.turns.remove(s)
	for {
		select {
		case <-f.quit:
			return
		case number := <-f.popularity.wanted:
			for f.saveNext(s, number) {
			}
		}
	}
}

// saveNext saves some more of a file, and ends its events when nothing is left.
// It tells whether there is more to do.
func (f *filter) saveNext(s *slot, number uint64) (more bool) {
	t := f.turns.work(s)
	defer f.turns.rest(s)
	defer f.turns.end(s)
	if t.state != passing || len(t.shields) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, s := range t.shields {
		switch s.SaveMore(ctx, number) {
		case shield.More:
			return true
		case shield.Never:
			return false
		}
	}
	return false // its next event will be one of the last
}
