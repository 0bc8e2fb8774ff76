package zfs

import (
	"context"
	"time"
)

// watchEvery is how often it is looked how much is left. Of many datasets less often, so
// that looking takes no more than its share of the time.
const (
	watchEvery = 250 * time.Millisecond
	watchShare = 20
	owedMost   = 10 * time.Second // between two tries to end what was given up
)

// watch gives snapshots up before they fill their pool, or a quota, until the set is over.
func (s *set) watch() {
	gauges := map[bound]*gauge{}
	wait := time.NewTimer(watchEvery)
	defer wait.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-wait.C:
		}
		wait.Reset(max(watchEvery, watchShare*s.spare(gauges)))
	}
}

// spare is one look, unless somebody else is at the set, and says how long it took to
// look: not what follows from it, with which the next look must not wait.
func (s *set) spare(gauges map[bound]*gauge) (looking time.Duration) {
	select {
	case s.busy <- struct{}{}:
		defer func() { <-s.busy }()
	default:
		return 0
	}
	if s.state != taken || s.window.Load() || s.p.zfs.refuse() != nil {
		return 0
	}
	ctx, cancel := contextFor(callLimit)
	defer cancel()
	began := time.Now()
	limits := s.limits(ctx)
	looking = time.Since(began)
	for _, l := range limits {
		if gauges[l.bound] == nil {
			gauges[l.bound] = &gauge{}
		}
		g := gauges[l.bound].of(l)
		fell := g.fell(time.Now(), l.left)
		if !l.low(fell) {
			g.turns.take(time.Now(), nil, false)
			continue
		}
		if kept := s.kept(ctx, l, g, fell); l.worthwhile(kept) {
			s.giveUp(l, l.spent(fell, kept))
			s.tries, s.next = 0, time.Time{}
		}
	}
	if s.owed() && !time.Now().Before(s.next) {
		// It fails while files of a snapshot are open, and is tried again: soon at first,
		// since each try costs the pool a transaction group.
		_ = s.release(ctx, 0)
		s.tries++
		s.next = time.Now().Add(min(time.Duration(s.tries)*watchEvery, owedMost))
	}
	return looking
}

// limits are those of all datasets that are needed. What cannot be asked, Err tells.
func (s *set) limits(ctx context.Context) []limit {
	var all []limit
	seen := map[string]bool{}
	for _, m := range s.sorted() {
		if !m.needed() {
			continue
		}
		for _, name := range around(m.dataset) {
			if seen[name] {
				break // as are those around it
			}
			seen[name] = true
			if st, err := s.p.stats(ctx, s.device, name); err == nil {
				all = append(all, limitsOf(name, st)...)
			}
		}
	}
	return all
}

func (m *member) needed() bool { return m.gap == nil && m.users > 0 }

// giveUp gives up all targets that need a snapshot that counts for the limit.
func (s *set) giveUp(l limit, why error) {
	for _, t := range s.targets {
		for _, name := range t.datasets() {
			if m := s.members[name]; m.gap == nil && l.covers(name) {
				t.yield(why)
				break
			}
		}
	}
}

// yield gives t up: nothing is found by its Root from now on, and whoever reads it is told.
func (t *target) yield(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.unneeded {
		return
	}
	if t.err == nil {
		t.err = why
	}
	t.unneed()
	if t.view.root != nil {
		_ = t.set.space.Detach(t.view.root)
		// The path of it may be in use as long as it is not released: its number must
		// not become another file's.
		_ = t.set.space.Vacate(t.view.root)
	}
	close(t.yielded)
}

// owed tells whether there is still a snapshot that was given up.
func (s *set) owed() bool {
	for _, t := range s.targets {
		if !t.unneeded || t.released {
			continue
		}
		for _, name := range t.datasets() {
			if m := s.members[name]; m.gap == nil && m.users == 0 && !m.destroyed {
				return true
			}
		}
	}
	return false
}

// Yielded is closed when the snapshot is given up.
func (t *target) Yielded() <-chan struct{} { return t.yielded }
