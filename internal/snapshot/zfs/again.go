package zfs

import (
	"context"
	"sync/atomic"
	"time"
)

// Between two tries to undo something there is more and more time: each costs the pool
// a transaction group.
const (
	againFirst = time.Second
	againMost  = time.Minute
)

// later goes on with what could not be undone: when ZFS answers again, or what was in use
// may not be any more. Who asked for it may have gone on by then, and nobody else takes
// for a leftover what a process has made that lives. trying says that it is under way.
func (s *stuck) later(trying *atomic.Bool, undo func(context.Context) error) {
	if !trying.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer trying.Store(false)
		for pause := againFirst; ; pause = min(2*pause, againMost) {
			time.Sleep(pause)
			for s.refuse() != nil {
				time.Sleep(againFirst)
			}
			if undo(context.Background()) == nil {
				return
			}
		}
	}()
}
