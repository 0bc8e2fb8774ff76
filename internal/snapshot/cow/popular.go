package cow

import (
	"context"
	"sync"
	"time"

	"stillpoint/internal/snapshot/cow/shield"
)

// popular is after how many events a file is saved whole, so that it makes no
// more. An event costs as much as copying some ten pages.
const popular = 64

// A popularity counts the events of files.
type popularity struct {
	mu     sync.Mutex
	events map[uint64]int
	wanted chan uint64 // files to be saved whole
}

func newPopularity() popularity {
	return popularity{events: map[uint64]int{}, wanted: make(chan uint64, 256)}
}

// count counts one event. A file that cannot be taken on now will be asked for
// again.
func (p *popularity) count(number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events[number]++
	if p.events[number]%popular == 0 {
		select {
		case p.wanted <- number:
		default:
		}
	}
}

func (p *popularity) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.events)
}

// savePopular saves popular files whole. It ends with the filter.
func (f *filter) savePopular() {
	for {
		select {
		case <-f.quit:
			return
		case number := <-f.popularity.wanted:
			for f.saveNext(number) {
			}
		}
	}
}

// saveNext saves some more of a file, and ends its events when nothing is left.
// It tells whether there is more to do.
func (f *filter) saveNext(number uint64) (more bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.state != passing || len(f.shields) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, s := range f.shields {
		switch s.SaveMore(ctx, number) {
		case shield.More:
			return true
		case shield.Never:
			return false
		}
	}
	// All of it is saved. The mark is on the inode that the number stands
	// for now; should that be another one by now, it has nothing to save.
	f.shields[0].Live(number, func(fd int) { _ = f.events.Ignore(fd) })
	return false
}
