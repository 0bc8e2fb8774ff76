package cachefile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// Rules are what the administrator and the provider want.
type Rules struct {
	Named      []Named // places in the order of preference; others are not taken then
	SameVolume bool    // the provider can keep the originals of a volume on that volume
	Initial    Size    // reserved before anything is captured; by default Least
	Maximum    Size    // of each file; the default is in the comment of Place
	Memory     int64   // bytes of each file that may wait to be written; 0 stands for 128 MiB

	Against map[volume.ID]string // volumes that the provider cannot use, and why
}

// Named is a directory that the administrator named.
type Named struct {
	Dir    string
	Volume volume.ID // that shows it
}

// Name finds the volume of a directory.
func Name(t *volume.Table, dir string) (Named, error) {
	v, _, _, err := t.Find(dir)
	if err != nil {
		return Named{}, fmt.Errorf("place for a cache file: %w", err)
	}
	return Named{Dir: dir, Volume: v.ID}, nil
}

// A Placement is where the cache files of a set go.
type Placement struct {
	Dir    string    `json:"dir"`
	Volume volume.ID `json:"volume"`
	Limits []Limits  `json:"limits"` // in the order of the set

	// On are the volume and those that it stands on. While one of them is
	// frozen, writing to a cache file may have to wait for the thaw.
	On []volume.ID `json:"on"`
}

// Limits are those of one cache file, in bytes.
type Limits struct {
	Initial int64 `json:"initial"` // reserved when it is created
	Maximum int64 `json:"maximum"` // never more, unless it is raised
	Raised  int64 `json:"raised"`  // to so much at most; 0 where Maximum is what the rules say
	Keep    int64 `json:"keep"`    // by growing it leaves this much free for others on its volume
	Memory  int64 `json:"memory"`  // at most this much waits to be written; 0 for the default
	Floor   int64 `json:"floor"`   // when others leave less, it ends itself and gives its blocks back

	// Pools are the thin pools below its volume, by the numbers of their devices: when
	// one gets short, it ends itself, too.
	Pools []string `json:"pools,omitempty"`
}

// A Candidate is a volume that was considered, and why it is good or not.
type Candidate struct {
	Volume  volume.ID `json:"volume"`
	Dir     string    `json:"dir"`
	Free    uint64    `json:"free"`
	Chosen  bool      `json:"chosen"`
	For     []string  `json:"for"`
	Against []string  `json:"against"` // empty where a cache file can go
}

// Least is the smallest cache file that is worth a try.
const Least = 50 << 20

// Place decides where the cache files of a set go: the first usable one of the
// named places, else the local volume with the most free space that is not part
// of the set, else, if the rules allow it, a volume of the set. all holds every
// volume of the host, those of the set too. A file may become as large as 30 %
// of what is used on the volume whose originals it holds, or as all of it up to
// 1 GiB, and all of a set as large as 90 % of what is free where they lie, but
// each at least Least; rules may set another maximum within the free space. This
// is for what changes: where files have to be copied besides, a file may be
// raised for them, within the 90 %.
//
// Nothing goes where it would be lost (memory), where it could hang (network)
// or make the set wait for itself (a volume of the set, or one that stands on
// such a volume, unless the rules allow the former). A volume that a volume of
// the set stands on, being a file there, is good: it is not frozen.
//
// Candidates come in the order in which they were preferred. Without any usable
// one the error has the code cache-nowhere.
func Place(r Rules, set, all []volume.Volume) (Placement, []Candidate, error) {
	h := newHost(set, all)
	var candidates []Candidate
	var best *Placement
	for _, p := range h.places(r) {
		c := h.judge(p, r)
		if len(c.Against) == 0 {
			limits, err := h.limits(r, p.v)
			switch {
			case err != nil:
				c.Against = append(c.Against, err.Error())
			case best == nil:
				best = &Placement{Dir: c.Dir, Volume: c.Volume, Limits: limits, On: h.on(p.v)}
				c.Chosen = true
			}
		}
		candidates = append(candidates, c)
	}
	if best == nil {
		return Placement{}, candidates, nowhere(r, candidates)
	}
	return *best, candidates, nil
}

func nowhere(r Rules, candidates []Candidate) error {
	var why []string
	for _, c := range candidates {
		// What nobody would expect to be used is not worth a line.
		if len(r.Named) > 0 || !slices.Contains(c.Against, notLocal) {
			why = append(why, c.Dir+" ("+strings.Join(c.Against, ", ")+")")
		}
	}
	if len(why) == 0 {
		return problem.Newf(problem.CacheNowhere, "", "no local volume for a cache file")
	}
	return problem.Newf(problem.CacheNowhere, "", "no place for a cache file: %s", strings.Join(why, "; "))
}

// A place is a directory that may be taken.
type place struct {
	v     *volume.Volume
	dir   string
	named bool
}

// places lists what the rules let be considered, the preferred ones first.
func (h *host) places(r Rules) []place {
	var places []place
	if len(r.Named) > 0 {
		for _, n := range r.Named {
			v := h.byID[n.Volume]
			if v == nil {
				v = &volume.Volume{ID: n.Volume} // gone meanwhile: of no kind
			}
			places = append(places, place{v, n.Dir, true})
		}
		return places
	}
	for i := range h.all {
		v := &h.all[i]
		if v.Kind != volume.Virtual {
			places = append(places, place{v: v, dir: dirOf(v)})
		}
	}
	slices.SortStableFunc(places, func(a, b place) int {
		return cmp.Or(
			compareBool(h.inSet(a.v), h.inSet(b.v)),
			-cmp.Compare(a.v.Free, b.v.Free),
			cmp.Compare(a.dir, b.dir),
		)
	})
	return places
}

// dirOf is the first mount point that leads to the root of the volume and can
// be written. Other mounts may be of single files.
func dirOf(v *volume.Volume) string {
	for _, m := range v.Mounts {
		if m.Root == "/" && !m.Hidden && !m.Deleted && !m.ReadOnly {
			return m.Point
		}
	}
	return ""
}

const notLocal = "not a local volume"

// unnamedFiles are types that have files without a name: those of open(2),
// O_TMPFILE, that a server may have on a disk, and bcachefs and ZFS.
var unnamedFiles = map[string]bool{
	"bcachefs": true, "btrfs": true, "ext2": true, "ext3": true, "ext4": true, "f2fs": true, "xfs": true, "zfs": true,
}

// judge says what speaks for and against a place, but for its size.
func (h *host) judge(p place, r Rules) Candidate {
	c := Candidate{Volume: p.v.ID, Dir: p.dir, Free: p.v.Free}
	pro := func(format string, args ...any) { c.For = append(c.For, fmt.Sprintf(format, args...)) }
	con := func(format string, args ...any) { c.Against = append(c.Against, fmt.Sprintf(format, args...)) }
	if p.named {
		pro("named by the administrator")
	}
	switch p.v.Kind {
	case volume.Local:
	case volume.Memory:
		con("in memory")
	case volume.EFI:
		con("the EFI system partition")
	case "":
		con("no such volume is mounted")
	default:
		con(notLocal)
	}
	if c.Dir == "" {
		c.Dir = p.v.Mounts[0].Point
		if !p.v.ReadOnly {
			con("no mount point leads to its root and can be written")
		}
	}
	if p.v.ReadOnly {
		con("read-only")
	}
	if why := r.Against[p.v.ID]; why != "" {
		con("%s", why)
	}
	if p.v.Kind == volume.Local && !unnamedFiles[p.v.FSType] && !p.named {
		con("%s has no files without a name", p.v.FSType)
	}
	switch s := h.setVolume(p.v); {
	case s != "" && r.SameVolume:
		pro("part of the set, which this provider can use where there is nothing else")
	case s != "":
		con("part of the set")
	default:
		pro("not part of the set")
	}
	for _, below := range h.below(p.v) {
		switch {
		case h.inSet(below):
			con("stands on %s, which is part of the set", below.Mounts[0].Point)
		case below.Kind != volume.Local:
			con("stands on %s, which is %s", below.Mounts[0].Point, below.Kind)
		}
	}
	if h.encrypted && !h.encryptedBelow(p.v) {
		if p.named {
			pro("not encrypted, but named: originals of an encrypted volume will be on it in the clear")
		} else {
			con("not encrypted, as a volume of the set is")
		}
	}
	for _, s := range h.set {
		if slices.ContainsFunc(h.below(&s), func(b *volume.Volume) bool { return same(b, p.v) }) {
			pro("%s stands on it, which does no harm", s.Mounts[0].Point)
		}
	}
	return c
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
