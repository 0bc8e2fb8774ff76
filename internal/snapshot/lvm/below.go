package lvm

import (
	"strings"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// brief is how long a device may be suspended by who does no more than change it, as
// dmeventd does when it extends a pool.
const brief = 2 * time.Second

// settled is a device when nobody changes it just now.
func settled(c *dm.Control, n dm.Number) (dm.Device, error) {
	for end := time.Now().Add(brief); ; time.Sleep(10 * time.Millisecond) {
		d, err := c.Status(n)
		if err != nil || !d.Suspended || time.Now().After(end) {
			return d, err
		}
	}
}

// bears is nil for a device below a volume that is neither suspended, since a command
// of LVM that reads it would wait, nor can fill up where nobody looks.
func (o origin) bears(c *dm.Control, v volume.Volume, below volume.Device) error {
	n, err := dm.ParseNumber(below.Number)
	if below.DMName == "" || err != nil {
		return nil
	}
	d, err := settled(c, n)
	if err != nil {
		return nil // it was changed since the volume was looked at, and is not below it now
	}
	if d.Suspended {
		return problem.Newf(problem.DeviceSuspended, string(v.ID), "%s, on which it lies, is suspended: another program changes it, or died in it (dmsetup resume %s lets everybody go on)", d.Name, d.Name)
	}
	switch {
	case n == o.pool.number || !canFill(d):
		return nil
	case o.pool.number == (dm.Number{}):
		return problem.Newf(problem.NoProvider, string(v.ID), "it lies on %s, which can fill up while its volume group has room: originals take room there, too", d.Name)
	}
	return problem.Newf(problem.NoProvider, string(v.ID), "its thin pool lies on %s, which can fill up before the pool does: a snapshot takes room there, too", d.Name)
}

// canFill tells a device that may have no room for what has its place on it.
func canFill(d dm.Device) bool {
	return isPool(d) || strings.HasSuffix(d.UUID, "-vpool") || strings.HasPrefix(d.UUID, "VDO-")
}

// isPool tells a thin pool of LVM by the UUID, which lv_layer in lvm2 ends so for one
// that has a volume, and "-vpool" for one of VDO. To ask for its state would mean to
// wait where its disks do not answer.
func isPool(d dm.Device) bool {
	return strings.HasPrefix(d.UUID, "LVM-") && strings.HasSuffix(d.UUID, "-tpool")
}
