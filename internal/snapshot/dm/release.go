package dm

import (
	"errors"

	"stillpoint/internal/fault"
	"stillpoint/internal/sys/dm"
)

// release takes a snapshot away, and with the last one of an origin what is laid
// below that. It asks the kernel what there is, so it works for what another
// process has made, however far that came. The locks are held.
func release(c *dm.Control, t tag) error {
	if err := endSnapshot(c, t.as(kindSnapshot)); err != nil {
		return err
	}
	fault.Point("dm:snapshot-removed")
	if err := (origin{c, t.origin}).clear(); err != nil {
		return err
	}
	fault.Point("dm:origin-restored")
	s, err := c.StatusOf(t.as(kindStore).uuid())
	if err != nil {
		return ignore(err, dm.ErrNone)
	}
	return removeDevice(c, s)
}

// clear takes away what is laid below an origin that has no snapshot.
func (o origin) clear() error {
	if more, err := isNeeded(o.control, o.number); more || err != nil {
		return err
	}
	return o.restore()
}

// endSnapshot ends a snapshot that may still be read: who does gets errors from
// now on, and nothing that the live volume has instead. The device then goes with
// its last reader.
func endSnapshot(c *dm.Control, t tag) error {
	d, err := c.StatusOf(t.uuid())
	if err != nil {
		return ignore(err, dm.ErrNone)
	}
	if d.Live {
		table, err := c.Table(d.Number)
		if err != nil {
			return err
		}
		if err := c.Load(d.Number, []dm.Target{{Length: dm.Sectors(table), Type: "error"}}, true); err != nil {
			return err
		}
		if err := resume(c, d.Number, dm.Alone); err != nil {
			return errors.Join(err, c.Clear(d.Number))
		}
	}
	err = c.Remove(d.Number, dm.Alone)
	if errors.Is(err, dm.ErrInUse) {
		err = c.RemoveLater(d.Number, dm.Alone)
	}
	return ignore(err, dm.ErrNone)
}

// isNeeded tells whether there is a snapshot of an origin, of whichever process.
func isNeeded(c *dm.Control, number dm.Number) (bool, error) {
	all, err := devices(c)
	if err != nil {
		return false, err
	}
	for _, d := range all {
		if !d.ours || d.tag.kind != kindSnapshot || d.tag.origin != number {
			continue
		}
		table, err := c.Table(d.Number)
		if err != nil && !errors.Is(err, dm.ErrNone) {
			return false, err
		}
		if len(table) == 1 && table[0].Type == "error" {
			continue // it has ended, and is still read
		}
		return true, nil
	}
	return false, nil
}
