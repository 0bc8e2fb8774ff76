package doctor

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/thinpool"
	"stillpoint/internal/volume"
)

// A Caching is what cache files are for and what was chosen for them.
type Caching struct {
	Volumes []volume.Volume // whose originals go to cache files
	Apart   bool            // one volume is taken after the other
	Choice  snapshot.CacheChoice
}

// CacheVolumes are those that cache files may be written to: where they would be
// placed, and what that stands on.
func CacheVolumes(s Subject, c Caching) (vs []volume.Volume) {
	rules, err := c.rules(s.Table)
	if err != nil || len(c.Volumes) == 0 {
		return nil
	}
	for _, v := range c.Volumes {
		p, _, err := placeOf(s, rules, []volume.Volume{v})
		if err != nil {
			continue // which Cache says
		}
		for _, w := range s.Table.Volumes() {
			known := slices.ContainsFunc(vs, func(o volume.Volume) bool { return o.ID == w.ID })
			if slices.Contains(p.On, w.ID) && !known {
				vs = append(vs, w)
			}
		}
	}
	return vs
}

// placeOf is where a job would put the cache files of a set.
func placeOf(s Subject, r cachefile.Rules, set []volume.Volume) (cachefile.Placement, []cachefile.Candidate, error) {
	all, short := thinpool.Bounded(s.Table.Volumes())
	maps.Copy(short, r.Against)
	r.Against = short
	return cachefile.Place(r, set, all)
}

// waiting is how much of a cache file may be in memory (package cachefile).
const waiting = 128 << 20

// smallest is the share of what is used on a volume below which a cache file is
// called small, in percent. The default is 30.
const smallest = 5

// Cache looks whether cache files have a place for all volumes together, whether
// they can become large enough, and whether there is memory for what waits to be
// written to them.
func Cache(h Host, s Subject, c Caching) Check {
	return Check{Name: "cache", Look: func(ctx context.Context) ([]Finding, error) {
		if len(c.Volumes) == 0 {
			return none("no volume needs a cache file"), nil
		}
		rules, err := c.rules(s.Table)
		if err != nil {
			return []Finding{failed(c.Choice.Dir, err).so("a backup fails", "name another folder for cache files, or none")}, nil
		}
		// Nobody takes all volumes of a host together unless asked to.
		sets := [][]volume.Volume{c.Volumes}
		if s.whole() || c.Apart {
			sets = nil
			for _, v := range c.Volumes {
				sets = append(sets, []volume.Volume{v})
			}
		}
		var fs []Finding
		for _, set := range sets {
			fs = append(fs, room(s, rules, set)...)
		}
		f, err := memory(h, len(sets[0]))
		if err != nil {
			return fs, err
		}
		return append(fs, f...), nil
	}}
}

func (c Caching) rules(t *volume.Table) (cachefile.Rules, error) {
	r := cachefile.Rules{SameVolume: true}
	if c.Choice.Dir != "" {
		n, err := cachefile.Name(t, c.Choice.Dir)
		if err != nil {
			return r, problem.New(problem.CacheNowhere, c.Choice.Dir, err)
		}
		r.Named = []cachefile.Named{n}
	}
	if c.Choice.Maximum != "" {
		size, err := cachefile.ParseSize(c.Choice.Maximum)
		if err != nil {
			return r, problem.New(problem.Usage, "", err)
		}
		r.Maximum = size
	}
	return r, nil
}

// room is about the place of the cache files of a set.
func room(s Subject, r cachefile.Rules, set []volume.Volume) (fs []Finding) {
	p, _, err := placeOf(s, r, set)
	if err != nil {
		f := failed(places(set), err).so("a backup fails before anything is taken", "free some space, or name a folder with more: --cache-dir")
		if s.whole() {
			f.Result = Warning
		}
		return []Finding{f}
	}
	for i, v := range set {
		max := uint64(p.Limits[i].Maximum)
		if r.Maximum == (cachefile.Size{}) && max < v.Used/100*smallest {
			fs = append(fs, warned(problem.CacheSmall, at(v), "its cache file, in %s, can become %d MiB at most, and %d MiB are used on the volume", p.Dir, max>>20, v.Used>>20).
				so("if more than that is changed while the backup runs, it fails with cache-full; the server does not notice", "free some space there, name a folder with more (--cache-dir), or run backups when less is changed"))
			continue
		}
		f := fine("its cache file, in %s, can become %d MiB", p.Dir, max>>20)
		f.Subject = at(v)
		fs = append(fs, f)
	}
	return fs
}

// memory is about what waits to be written, of n cache files.
func memory(h Host, n int) ([]Finding, error) {
	available, err := meminfo(h, "MemAvailable")
	if err != nil {
		return nil, err
	}
	if need := int64(n) * waiting; available < need {
		return []Finding{warned(problem.MemoryShort, "", "%d MiB of memory are available, and %d MiB may wait to be written to cache files", available>>20, need>>20).
			so("applications may be swapped out or ended for it, and the snapshot may be lost", "run backups when there is more memory, or one volume after the other: --one-at-a-time")}, nil
	}
	return nil, nil
}

// meminfo is a field of /proc/meminfo (proc_meminfo(5)), in bytes.
func meminfo(h Host, field string) (int64, error) {
	f, err := os.Open(filepath.Join(h.Proc, "meminfo"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), field+":"); ok {
			var kib int64
			_, err := fmt.Sscan(rest, &kib)
			return kib << 10, err
		}
	}
	return 0, problem.Newf(problem.LookFailed, "", "%s has no line %s", f.Name(), field)
}
