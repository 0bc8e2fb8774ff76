package lvm

import (
	"sync"
	"time"
)

// A watcher gives snapshots up before they fill their pool. Each is watched by itself: one
// that has to wait keeps no other from being watched.
type watcher struct {
	quit chan struct{}
	once sync.Once
}

func watch(s *set) *watcher {
	w := &watcher{quit: make(chan struct{})}
	for _, t := range s.targets {
		s.working.Go(func() { w.watch(t) })
	}
	return w
}

func (w *watcher) watch(t *target) {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-w.quit:
			return
		case <-wait.C:
			wait.Reset(t.spare())
		}
	}
}

func (w *watcher) stop() {
	if w != nil {
		w.once.Do(func() { close(w.quit) })
	}
}

// spare keeps the snapshot unseen, gives it up when its pool has too little room, or will
// soon, and gives the pool what it keeps. It says when to look again. It is two calls to
// the kernel, which read nothing. The logical volume goes with Release.
func (t *target) spare() time.Duration {
	t.set.mu.Lock()
	resumed := t.set.resumed
	t.set.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !resumed:
		return often // nothing is asked yet
	case t.released.Load() || t.place == nil || t.emptied:
		return seldom
	}
	if t.devices != nil && time.Since(t.covered) >= seldom {
		t.covered = time.Now()
		_ = t.devices.cover(t.set.control) // where it is gone, so is what hides it
	}
	if t.yielding {
		t.empty()
		return seldom
	}
	p, err := t.origin.pool.now(t.set.control)
	if err != nil {
		return seldom // Err says what it means
	}
	if err := t.tide.roomy(time.Now(), p, t.poolName()); err != nil {
		t.giveUp(err)
		return seldom
	}
	return p.next()
}
