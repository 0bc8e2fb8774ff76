package repository

import (
	"sync"
	"sync/atomic"
	"time"
)

// A clock is kopia's. Of a manifest and its deletion kopia believes the one
// that has the later time (repo/manifest/committed_manifest_manager.go,
// mergeEntryLocked), so a deletion must never be earlier, whatever the clock
// of the host does.
type clock struct {
	now  func() time.Time
	turn sync.Mutex   // of calls of after
	past atomic.Int64 // now is later than this
}

func (c *clock) read() time.Time {
	now, past := c.now(), time.Unix(0, c.past.Load())
	if now.After(past) {
		return now
	}
	return past.Add(1)
}

// after does something that happens after t.
func (c *clock) after(t time.Time, do func() error) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.past.Store(t.UnixNano())
	defer c.past.Store(0)
	return do()
}
