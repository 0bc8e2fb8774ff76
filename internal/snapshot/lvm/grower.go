package lvm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"stillpoint/internal/problem"
	stack "stillpoint/internal/snapshot/dm"
	"stillpoint/internal/sys/dm"
)

// A grower is what may need free extents of its group while a room has some: a thin pool
// or one of VDO, which fail the writes of all their volumes when they are full, or a
// classic snapshot, which is lost then. dmeventd extends them, or an administrator.
type grower struct {
	name   string // GROUP/NAME
	uuid   string // of the device whose size is its own
	size   int64  // bytes
	was    int64  // bytes of the device when it was looked at first; 0 where it is not active
	isThin bool   // a pool that the kernel tells of how full it is
	tide   *tide  // of such a pool
}

// growersOf are those of a group among its logical volumes. The first letter of lv_attr
// says what a volume is (lvs(8)).
func growersOf(lvs []logical, groupUUID string) (all []grower, err error) {
	for _, lv := range lvs {
		suffix := ""
		if lv.GroupUUID == groupUUID && lv.VolumeAttr != "" {
			suffix = map[byte]string{'t': "-tpool", 'D': "-vdata", 's': "-cow", 'S': "-cow"}[lv.VolumeAttr[0]] // of its device (lvm2, lib/activate)
		}
		if suffix == "" {
			continue
		}
		size, err := lv.bytes()
		if err != nil {
			return nil, err
		}
		name := lv.Group + "/" + strings.Trim(lv.Name, "[]")
		all = append(all, grower{name: name, uuid: dmUUID(lv) + suffix, size: size, isThin: suffix == "-tpool", tide: &tide{}})
	}
	return all, nil
}

// keepFor has the group keep a fifth of the largest of them, which is by how much LVM
// extends one at a time (activation/thin_pool_autoextend_percent and its like in
// lvm.conf(5), as they are delivered), and says why none of its extents may be taken at all.
func (s *space) keepFor(c *dm.Control, all []grower) error {
	if len(all) == 0 || s.extent == 0 {
		return nil
	}
	s.growers = all
	largest := slices.MaxFunc(all, func(a, b grower) int { return cmp.Compare(a.size, b.size) })
	s.keep, s.keptFor = (largest.size/5+s.extent-1)/s.extent, largest.name
	for i := range all {
		all[i].was, _ = all[i].now(c)
		if err := all[i].lasts(c, func(p pool) error { return p.roomy(all[i].name, 2) }); err != nil {
			return s.short(fmt.Errorf("%s may need all of its free extents: %w", all[i].name, err))
		}
	}
	return nil
}

// starving is why a room is to be given back: what was kept for the group's pools is used
// by half, or one of them has nearly nothing left. It reads no disk.
func (s *space) starving(c *dm.Control) error {
	grown := int64(0)
	for _, g := range s.growers {
		if is, err := g.now(c); err == nil && g.was > 0 { // or nobody fills it
			grown += max(0, is-g.was)
		}
		if err := g.lasts(c, func(p pool) error { return g.tide.roomy(time.Now(), p, g.name) }); err != nil {
			return problem.New(problem.PoolFull, g.name, fmt.Errorf("the free extents of its volume group are given back: %w", err))
		}
	}
	if kept := s.keep * s.extent; kept > 0 && grown > kept/2 {
		return problem.Newf(problem.PoolFull, s.group, "its pools have grown by %d MiB of the %d that were left for them, and may need what the snapshot has taken of the volume group", grown>>20, kept>>20)
	}
	return nil
}

// now is its size.
func (g grower) now(c *dm.Control) (int64, error) {
	d, err := c.StatusOf(g.uuid)
	if err != nil {
		return 0, err
	}
	table, err := c.Table(d.Number)
	return int64(dm.Sectors(table) * 512), err
}

// lasts is what is said of a thin pool as it is, or nil where it is not active.
func (g grower) lasts(c *dm.Control, say func(pool) error) error {
	if !g.isThin {
		return nil
	}
	d, err := c.StatusOf(g.uuid)
	if err != nil {
		return nil
	}
	p, err := poolState(c, d.Number)
	if err != nil || p.uuid != g.uuid {
		return nil
	}
	return say(p)
}

// Starving is why the room is to be given back at once, if it is.
func (r *room) Starving(c *dm.Control) error { return r.space.starving(c) }

var _ stack.Starving = (*room)(nil)
