package frozen

import "stillpoint/internal/guard"

// Bequeath gives the guard a duty for the case that this process dies before Close.
func (h *Hold) Bequeath(duty, of string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.guard == nil {
		return guard.ErrGone
	}
	return h.guard.Bequeath(duty, of)
}

// Forget lets go of the file systems, which are to be suspended no more; others may
// unmount them then. The guard stays, for its duty. It does nothing after Close, and
// while a freeze that was given up may still come about, which the guard is to end.
func (h *Hold) Forget() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.guard == nil || h.given.count.Load() > 0 {
		return nil
	}
	return h.guard.Unwatch()
}
