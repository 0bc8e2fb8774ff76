package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// A Runner runs a program and returns what it printed.
type Runner func(ctx context.Context, name string, args ...string) ([]byte, error)

// From which on thin pools, and classic snapshots, are nearly full, and below
// which a volume group has next to no room, in percent.
const (
	fullPool = 80
	lowGroup = 5
)

// Pools asks LVM how full the thin pools and volume groups are that volumes lie
// on. Where there are none it is not asked.
func Pools(s Subject, run Runner) Check {
	return Check{Name: "lvm", Look: func(ctx context.Context) ([]Finding, error) {
		groups := groupsOf(s.Volumes)
		if len(groups) == 0 {
			return none("no volume lies on LVM"), nil
		}
		lvs, err := report[logicalVolume](ctx, run, "lv", "lvs", "-a", "-o", "vg_name,lv_name,lv_attr,data_percent,metadata_percent")
		if err != nil {
			return nil, err
		}
		vgs, err := report[volumeGroup](ctx, run, "vg", "vgs", "-o", "vg_name,vg_size,vg_free")
		if err != nil {
			return nil, err
		}
		found, growing := pools(lvs, groups)
		for _, g := range vgs {
			size, free := number(g.Size), number(g.Free)
			if slices.Contains(growing, g.Name) && size > 0 && free/size*100 < lowGroup {
				found = append(found, warned(problem.PoolFull, g.Name, "the volume group has %.0f MiB left of %.0f MiB", free/(1<<20), size/(1<<20)).
					so("its thin pools and snapshots cannot grow when they get full", "vgextend it by another disk, or lvremove what is not needed"))
			}
		}
		if len(found) == 0 {
			found = append(found, fine("thin pools and snapshots of %s have room", strings.Join(groups, ", ")))
		}
		return found, nil
	}}
}

// pools is about what may get full, and names the groups that have such.
func pools(lvs []logicalVolume, groups []string) (found []Finding, growing []string) {
	for _, lv := range lvs {
		name := lv.Group + "/" + lv.Name
		if !slices.Contains(groups, lv.Group) || lv.Attr == "" {
			continue
		}
		data, metadata := number(lv.Data), number(lv.Metadata)
		switch lv.Attr[0] { // lvs(8): the type
		case 't':
			growing = append(growing, lv.Group)
			if data >= fullPool || metadata >= fullPool {
				found = append(found, warned(problem.PoolFull, name, "the thin pool is full by %.0f %%, its metadata by %.0f %%", data, metadata).
					so("a cache file, or anything else that is written, can fill it, and then every volume in it fails to write", "lvextend it, let it grow by itself (thin_pool_autoextend_threshold in lvm.conf), or fstrim the volumes in it"))
			}
		case 's', 'S':
			growing = append(growing, lv.Group)
			if data >= fullPool {
				found = append(found, warned(problem.PoolFull, name, "the snapshot is full by %.0f %%", data).
					so("when it is full it is lost, and with it what somebody keeps it for", "lvremove it if nobody needs it, or lvextend it"))
			}
		}
	}
	return found, growing
}

// groupsOf are the volume groups that volumes lie on.
func groupsOf(vs []volume.Volume) (groups []string) {
	for _, v := range vs {
		for _, d := range v.Stack {
			if g := group(d.DMName); d.Type == "lvm" && g != "" && !slices.Contains(groups, g) {
				groups = append(groups, g)
			}
		}
	}
	return groups
}

// group is the volume group in the name of a device of device-mapper, "group-volume",
// where hyphens within names are doubled (dm_build_dm_name() in libdm).
func group(dm string) string {
	const hyphen = "\x00"
	g, _, ok := strings.Cut(strings.ReplaceAll(dm, "--", hyphen), "-")
	if !ok {
		return ""
	}
	return strings.ReplaceAll(g, hyphen, "-")
}

type logicalVolume struct {
	Group    string `json:"vg_name"`
	Name     string `json:"lv_name"`
	Attr     string `json:"lv_attr"`
	Data     string `json:"data_percent"`
	Metadata string `json:"metadata_percent"`
}

type volumeGroup struct {
	Name string `json:"vg_name"`
	Size string `json:"vg_size"`
	Free string `json:"vg_free"`
}

// report runs a command of LVM and reads its report (lvmreport(7)).
func report[T any](ctx context.Context, run Runner, of, name string, args ...string) (all []T, err error) {
	out, err := run(ctx, name, append([]string{"--reportformat", "json", "--units", "b", "--nosuffix"}, args...)...)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem.Newf(problem.LookFailed, "", "the program %s is not there, of the package lvm2", name)
	}
	if err != nil {
		return nil, problem.New(problem.LookFailed, "", err)
	}
	var r struct {
		Report []map[string][]T `json:"report"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, problem.New(problem.LookFailed, "", fmt.Errorf("report of %s: %w", name, err))
	}
	for _, part := range r.Report {
		all = append(all, part[of]...)
	}
	return all, nil
}

// number is a figure of LVM's; what does not apply is empty.
func number(text string) float64 {
	n, _ := strconv.ParseFloat(text, 64)
	return n
}
