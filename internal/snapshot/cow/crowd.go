package cow

import (
	"context"
	"sync"
	"sync/atomic"

	"stillpoint/internal/problem"
)

// Everybody who waits at a gate takes a descriptor of this process, of which
// all filters together have only so many; who found none would be denied. So
// when thousands of threads come to wait, the set with the largest crowd is
// given up at once.
type crowds struct {
	mu      sync.Mutex
	sets    map[*set]bool // those whose gates are shut
	looking atomic.Bool
}

// A crowd is what a set is given up for.
type crowd struct {
	waited atomic.Int64       // how many did
	cut    context.CancelFunc // ends Hold
}

// shut is called before the gates of a set are. Hold goes on with the context
// that it returns.
func (c *crowds) shut(ctx context.Context, s *set) context.Context {
	ctx, s.crowd.cut = context.WithCancel(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sets == nil {
		c.sets = map[*set]bool{}
	}
	c.sets[s] = true
	return ctx
}

// open is called when they are open again.
func (c *crowds) open(s *set) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sets, s)
	if s.crowd.cut != nil {
		s.crowd.cut()
	}
}

// disperse lets the largest crowd go on. It does not wait for that, and does
// nothing while it is under way.
func (c *crowds) disperse() {
	if !c.looking.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer c.looking.Store(false)
		if largest, most := c.largest(); largest != nil {
			largest.crowded(most)
		}
	}()
}

func (c *crowds) largest() (largest *set, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.sets {
		if n := s.waiting(); n > most {
			largest, most = s, n
		}
	}
	return largest, most
}

// waiting is how many wait at the gates of a set.
func (s *set) waiting() (n int) {
	for _, t := range s.targets {
		n += t.filter.held()
	}
	return n
}

// crowded gives the set up, and lets everybody go on.
func (s *set) crowded(n int) {
	s.crowd.waited.Store(int64(n))
	s.crowd.cut()
	_ = inParallel(s.targets, func(t *target) error {
		t.lose(s.tooMany())
		return t.filter.open(s, nil)
	})
}

// tooMany is nil unless the set was given up for its crowd.
func (s *set) tooMany() error {
	n := s.crowd.waited.Load()
	if n == 0 {
		return nil
	}
	return problem.Newf(problem.FreezeBlocked, s.id,
		"%d threads waited to go on writing, for which there was not enough room (RLIMIT_NOFILE), so everybody was let go on", n)
}
