package dm

import (
	"context"
	"fmt"
	"strings"
	"syscall"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// place finds the place for the cache files of a set: in dir, if that is named.
// A volume of which there is a snapshot is none: to keep the original of what is
// written to its cache file, for each snapshot of the other, would have no end. Nor
// is there a snapshot of one that carries a cache file.
func (p *Provider) place(ctx context.Context, set []volume.Volume, r cachefile.Rules, dir string) (cachefile.Placement, []cachefile.Candidate, error) {
	t, err := p.host(ctx)
	if err != nil {
		return cachefile.Placement{}, nil, fmt.Errorf("look for a place for the cache file: %w", err)
	}
	if err := notSwappedTo(t, set); err != nil {
		return cachefile.Placement{}, nil, err
	}
	asked, carrying, err := p.entangled()
	if err != nil {
		return cachefile.Placement{}, nil, err
	}
	for _, v := range set {
		if carrying[v.Device] {
			return cachefile.Placement{}, nil, problem.Newf(problem.Busy, v.Mounts[0].Point, "the cache file of another snapshot lies on it")
		}
	}
	if dir != "" {
		n, err := cachefile.Name(t, dir)
		if err != nil {
			return cachefile.Placement{}, nil, problem.New(problem.CacheNowhere, dir, err)
		}
		if err := syscall.Access(dir, 0); err != nil {
			return cachefile.Placement{}, nil, problem.New(problem.CacheNowhere, dir, err)
		}
		r.Named = []cachefile.Named{n}
	}
	all := t.Volumes()
	r.Against = against(set, all, asked)
	return cachefile.Place(r, set, all)
}

// notSwappedTo is nil where none of the volumes has a swap file. When memory is short, a
// page that is written there would wait for the cache file, which may need memory to
// be written: the file system that it lies on does.
func notSwappedTo(t *volume.Table, set []volume.Volume) error {
	for _, s := range t.Swaps() {
		if !s.File {
			continue
		}
		on, _, _, err := t.Find(s.Path)
		if err != nil {
			continue // deleted, or of another mount namespace
		}
		for _, v := range set {
			if v.ID == on.ID {
				return problem.Newf(problem.NoProvider, string(v.ID), "the kernel swaps to a file on it (%s), and must not wait for a cache file; a swap device, such as a logical volume of its own, would be no hindrance", s.Path)
			}
		}
	}
	return nil
}

// against are volumes that no cache file of the set may lie on, and why.
func against(set, all []volume.Volume, asked map[string]bool) map[volume.ID]string {
	pools := map[string]bool{}
	for _, v := range set {
		for _, pool := range poolsOf(v) {
			pools[pool] = true
		}
	}
	why := map[volume.ID]string{}
	for _, v := range all {
		for _, pool := range poolsOf(v) {
			if pools[pool] {
				why[v.ID] = "its thin pool carries the set, too, and must not be filled by it"
			}
		}
		if asked[v.Device] {
			why[v.ID] = "there is a snapshot of it"
		}
	}
	return why
}

// poolsOf are the thin pools of LVM below a volume, by the name that LVM gives to
// what carries the thin volumes (lib/activate/dev_manager.c of lvm2).
func poolsOf(v volume.Volume) (numbers []string) {
	for _, d := range v.Stack {
		if strings.HasSuffix(d.DMName, "-tpool") {
			numbers = append(numbers, d.Number)
		}
	}
	return numbers
}
