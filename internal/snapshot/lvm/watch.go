package lvm

import (
	"sync"
	"time"
)

// watchEvery is how often pools are asked how full they are. It is one call to the
// kernel each, which reads nothing.
const watchEvery = 500 * time.Millisecond

// A watcher gives snapshots up before they fill their pool.
type watcher struct {
	quit chan struct{}
	once sync.Once
}

func watch(s *set) *watcher {
	w := &watcher{quit: make(chan struct{})}
	go func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-w.quit:
				return
			case <-tick.C:
				for _, t := range s.targets {
					t.spare()
				}
			}
		}
	}()
	return w
}

func (w *watcher) stop() {
	if w != nil {
		w.once.Do(func() { close(w.quit) })
	}
}

// spare keeps the snapshot unseen, gives it up when its pool has too little room, and
// gives the pool what it keeps. The logical volume goes with Release.
func (t *target) spare() {
	t.set.mu.Lock()
	resumed := t.set.resumed
	t.set.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil || t.released || t.place == nil || !resumed {
		return
	}
	if t.devices != nil {
		_ = t.devices.cover(t.set.control) // where it is gone, so is what hides it
	}
	p, err := t.origin.pool.now(t.set.control)
	if err != nil {
		return // Err says what it means
	}
	if err := p.roomy(t.poolName(), 1); err != nil {
		t.lose(err)
		t.empty()
	}
}
