package dm

import "stillpoint/internal/sys/dm"

// A Starving room may be needed by others more than by the snapshot: it says why, as
// soon as it is so, and the snapshot is given up. It is asked several times a second, and
// must wait for nothing.
type Starving interface {
	Starving(c *dm.Control) error
}

// isNeededElsewhere is why the snapshot's room is to be given back.
func (t *target) isNeededElsewhere() error {
	if s, ok := t.room.(Starving); ok {
		return s.Starving(t.set.control)
	}
	return nil
}
