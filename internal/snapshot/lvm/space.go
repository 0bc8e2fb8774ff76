package lvm

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	stack "stillpoint/internal/snapshot/dm"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// A space is what a volume group has free, on disks that may hold originals.
type space struct {
	group        string
	extent, free int64    // bytes of one, and how many there are
	disks        []string // as LVM names them
	left         []string // disks that are left out, and why

	growers []grower // which may need some of it, too
	keep    int64    // extents that are left for them
	keptFor string   // the largest of them
}

// A disk is a physical volume as pvs reports it.
type disk struct {
	Name   string      `json:"pv_name"`
	Attr   string      `json:"pv_attr"` // "a--": extents may be taken
	Free   json.Number `json:"pv_free"`
	Major  json.Number `json:"pv_major"`
	Minor  json.Number `json:"pv_minor"`
	Extent json.Number `json:"vg_extent_size"`
}

// disks asks for the physical volumes of a volume group.
func (c *console) disks(ctx context.Context, groupUUID string) ([]disk, error) {
	out, err := c.command(ctx, "pvs", "--reportformat", "json", "--units", "b", "--nosuffix",
		"-o", "pv_name,pv_attr,pv_free,pv_major,pv_minor,vg_extent_size", "-S", `vg_uuid="`+groupUUID+`"`)
	if err != nil {
		return nil, err
	}
	var r struct {
		Report []struct {
			PV []disk `json:"pv"`
		} `json:"report"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, problem.New(problem.SnapshotFailed, "pvs", fmt.Errorf("its report: %w", err))
	}
	var all []disk
	for _, part := range r.Report {
		all = append(all, part.PV...)
	}
	return all, nil
}

// space is what the group of a logical volume has free for originals of a set.
func (c *console) space(ctx context.Context, control *dm.Control, lv logical, set []volume.Volume) (space, error) {
	s := space{group: lv.Group}
	disks, err := c.disks(ctx, lv.GroupUUID)
	if err != nil {
		return s, coded(lv.Group, fmt.Errorf("ask LVM for free extents: %w", err))
	}
	for _, d := range disks {
		free, err := d.Free.Int64()
		if err == nil {
			s.extent, err = d.Extent.Int64()
		}
		if err != nil || s.extent <= 0 {
			return s, problem.Newf(problem.SnapshotFailed, lv.Group, "pvs says that %s has %q bytes free in extents of %q", d.Name, d.Free, d.Extent)
		}
		if free < s.extent || !strings.HasPrefix(d.Attr, "a") {
			continue
		}
		if why := unfit(control, volume.StackOf(d.Major.String()+":"+d.Minor.String()), set); why != "" {
			s.left = append(s.left, d.Name+" "+why)
			continue
		}
		s.free += free / s.extent
		s.disks = append(s.disks, d.Name)
	}
	return s, nil
}

// unfit says why originals of a set do not go to a disk with what it stands on.
func unfit(c *dm.Control, below []volume.Device, set []volume.Volume) string {
	if len(below) == 0 {
		return "is not there"
	}
	for _, d := range below {
		if n, err := dm.ParseNumber(d.Number); err == nil && d.DMName != "" {
			if is, err := c.Status(n); err == nil && canFill(is) {
				return "lies on " + is.Name + ", which can fill up"
			}
		}
		for _, v := range set {
			if d.File != "" && carries(v, d.File) {
				return fmt.Sprintf("lies in %s on %s, which is part of the set", d.File, v.ID)
			}
		}
	}
	if slices.ContainsFunc(set, func(v volume.Volume) bool { return isEncrypted(v.Stack) }) && !isEncrypted(below) {
		return "is not encrypted, as a volume of the set is"
	}
	return ""
}

func isEncrypted(below []volume.Device) bool {
	return slices.ContainsFunc(below, func(d volume.Device) bool { return d.Type == "crypt" })
}

// divide gives each volume of the group its share: as much as its cache file could
// become where so much is free, and never more than it takes to keep an original of all
// of it. What the group's pools may need is not free, and of the rest a tenth stays.
func (s space) divide(maximum cachefile.Size, ts []*thick) error {
	var vs []volume.Volume
	for _, t := range ts {
		vs = append(vs, t.volume)
	}
	limits, err := cachefile.Divide(maximum, vs, uint64(max(0, s.free-s.keep)*s.extent))
	if err != nil {
		return s.short(err)
	}
	total := int64(0)
	for i, t := range ts {
		const margin = stack.RoomMargin
		all := int64(t.volume.Stack[0].Size+margin-1) / margin * margin
		t.space = s
		t.extents = (min(limits[i].Maximum, all) + 2*margin + s.extent - 1) / s.extent
		total += t.extents
	}
	free := s.free - s.keep
	if total > free || !shave(ts, free*9/10, (cachefile.Least+2*stack.RoomMargin+s.extent-1)/s.extent) {
		return s.short(fmt.Errorf("it has %d extents of %d MiB free, and %d are needed", free, s.extent>>20, total))
	}
	return nil
}

// shave takes from each room in turn what rounding up to extents has made too many, and
// tells whether that is enough while each keeps what is the least.
func shave(ts []*thick, most, least int64) bool {
	total := int64(0)
	for _, t := range ts {
		total += t.extents
	}
	for shaved := true; shaved && total > most; {
		shaved = false
		for _, t := range ts {
			if total > most && t.extents > least {
				t.extents--
				total--
				shaved = true
			}
		}
	}
	return total <= most
}

// keeping says what is left for others, if anything.
func (s space) keeping() string {
	if s.keep == 0 {
		return ""
	}
	return fmt.Sprintf(", where %d MiB stay for what %s and the like may need", s.keep*s.extent>>20, s.keptFor)
}

// short says that the group has too little free.
func (s space) short(why error) error {
	if len(s.left) > 0 {
		why = fmt.Errorf("%w; without %s", why, strings.Join(s.left, ", "))
	}
	return problem.New(problem.PoolFull, s.group, fmt.Errorf("the volume group has no room for the originals of what changes%s: %w", s.keeping(), why))
}
