package dm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/thinpool"
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
	if err := notCarrying(carrying, set); err != nil {
		return cachefile.Placement{}, nil, err
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
	all, short := thinpool.Bounded(t.Volumes())
	others := r.Against
	r.Against = against(set, all, asked)
	maps.Copy(r.Against, short)
	maps.Copy(r.Against, others)
	placement, candidates, err := cachefile.Place(r, set, all)
	if err != nil {
		err = fmt.Errorf("%s keeps originals on a volume that is not taken itself, which --cache-dir can name: %w", Name, err)
	}
	return placement, candidates, err
}

// notCarrying is nil where none of the volumes carries the cache file of another snapshot.
func notCarrying(carrying map[string][]string, set []volume.Volume) error {
	for _, v := range set {
		if len(carrying[v.Device]) > 0 {
			return problem.Newf(problem.Busy, v.Mounts[0].Point, "the cache file of another snapshot lies on it")
		}
	}
	return nil
}

// beside is nil when there is a place for the cache files of a set that is on no volume
// which is taken with it by somebody else: what is kept there would be less room for
// that, and wait for that one's instant. Where people have named one, they have chosen.
func (p *Provider) beside(ctx context.Context, set, others []volume.Volume, r cachefile.Rules, dir string) error {
	if err := p.untied(set, others); err != nil {
		return err
	}
	if dir == "" {
		r.Against = map[volume.ID]string{}
		for _, v := range others {
			r.Against[v.ID] = "taken in the same set"
		}
	}
	_, _, err := p.place(ctx, set, r, dir)
	return err
}

// untied is nil where no other volume of the set carries the cache file of an earlier
// snapshot of one. If that one's writes were suspended first, the other one's could
// not be: before it comes to rest it is written to, and so is the cache file.
func (p *Provider) untied(set, others []volume.Volume) error {
	_, carrying, err := p.entangled()
	if err != nil {
		return err
	}
	for _, v := range set {
		for _, o := range others {
			if slices.Contains(carrying[o.Device], v.Device) {
				return problem.Newf(problem.Busy, v.Mounts[0].Point, "there is a snapshot of it whose cache file lies on %s, which is to be taken in the same set", o.Mounts[0].Point)
			}
		}
	}
	return nil
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
		for _, pool := range thinpool.Of(v) {
			pools[pool] = true
		}
	}
	why := map[volume.ID]string{}
	for _, v := range all {
		for _, pool := range thinpool.Of(v) {
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
