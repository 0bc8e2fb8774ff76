package frozen

import (
	"sync"
	"sync/atomic"
	"time"

	"stillpoint/internal/guard"
)

// heart is how often this process must show that it lives while a freeze that was
// given up can still come about.
const heart = time.Second

// Given are freezes that were given up and may still come about, which nothing can
// cut short. The zero value is none.
type Given struct {
	pending sync.WaitGroup
	count   atomic.Int32
}

func (g *Given) up() {
	g.count.Add(1)
	g.pending.Add(1)
}

func (g *Given) over() {
	g.count.Add(-1)
	g.pending.Done()
}

// End calls end, which ends the guard: now, or when none of them can come about
// any more. Until then the guard ends them if this process has ended, or stopped.
func (g *Given) End(by *guard.Guard, end func() error) error {
	if g.count.Load() == 0 {
		return end()
	}
	go g.await(by, end)
	return by.Heart(heart)
}

func (g *Given) await(by *guard.Guard, end func() error) {
	gone := make(chan struct{})
	go func() { g.pending.Wait(); close(gone) }()
	tick := time.NewTicker(heart / 10)
	defer tick.Stop()
	for {
		select {
		case <-gone:
			_ = end()
			return
		case <-tick.C:
			by.Beat()
		}
	}
}
