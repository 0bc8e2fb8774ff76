package zfs

import (
	"path"
	"slices"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A place is where a dataset shows in the view of a target.
type place struct {
	at      string // "." for the target's own
	dataset string
}

// clean checks the paths of a target.
func clean(t snapshot.Target) ([]string, error) {
	var paths []string
	for _, p := range t.Paths {
		c := path.Clean(p)
		if p == "" || path.IsAbs(p) || c == ".." || strings.HasPrefix(c, "../") {
			return nil, problem.Newf(problem.PathMissing, p, "is not a path within volume %s", t.Volume.ID)
		}
		paths = append(paths, c)
	}
	if len(paths) == 0 {
		return nil, problem.Newf(problem.PathMissing, string(t.Volume.ID), "no path of it is selected")
	}
	return paths, nil
}

// below tells whether p is dir or lies below it.
func below(dir, p string) bool {
	return dir == "." || dir == "/" || p == dir || strings.HasPrefix(p, dir+"/")
}

// selected tells whether one of the paths is at, or holds it.
func selected(paths []string, at string) bool {
	return slices.ContainsFunc(paths, func(p string) bool { return below(p, at) })
}

// leads tells whether one of the paths is at it, or in it.
func leads(paths []string, at string) bool {
	return slices.ContainsFunc(paths, func(p string) bool { return below(at, p) })
}

// places are where the volume, and the datasets of its pool that are mounted in it below
// the selected paths or on the way there, show: the outer ones first.
func places(t *volume.Table, v volume.Volume, paths []string) []place {
	found := []place{{".", v.Source}}
	var in func(outer volume.ID, at string, depth int)
	in = func(outer volume.ID, at string, depth int) {
		for _, m := range mountsIn(t, outer) {
			where := path.Join(at, m.rel)
			p := place{where, m.volume.Source}
			if !selected(paths, where) && !leads(paths, where) || m.volume.FSType != "zfs" || poolOf(p.dataset) != poolOf(v.Source) || slices.Contains(found, p) || depth > 100 {
				continue
			}
			found = append(found, p)
			in(m.volume.ID, where, depth+1)
		}
	}
	in(v.ID, ".", 0)
	slices.SortFunc(found, func(a, b place) int { return strings.Compare(a.at, b.at) })
	return found
}

// A mounted volume and its place in the volume that it is mounted in.
type mounted struct {
	volume volume.Volume
	rel    string
}

// mountsIn lists what is mounted directly in a volume, and can be seen. Of a bind mount
// only what shows all of a dataset: another one is a place of its own.
func mountsIn(t *volume.Table, outer volume.ID) []mounted {
	type owned struct {
		volume.Mount
		of volume.ID
	}
	byID := map[int]owned{}
	for _, v := range t.Volumes() {
		for _, m := range v.Mounts {
			byID[m.ID] = owned{m, v.ID}
		}
	}
	var all []mounted
	for _, v := range t.Volumes() {
		for _, m := range v.Mounts {
			if m.Hidden || m.Root != "/" || v.ID == outer || strings.Contains(v.Source, "@") {
				continue
			}
			parent := byID[m.Parent]
			for parent.Hidden && parent.Point == m.Point { // it is mounted over that
				parent = byID[parent.Parent]
			}
			if rel := within(parent.Mount, m.Point); parent.of == outer && rel != "." {
				all = append(all, mounted{v, rel})
			}
		}
	}
	return all
}

// within is a live path below a mount, as a path of its volume.
func within(m volume.Mount, point string) string {
	below := strings.TrimPrefix(point, strings.TrimSuffix(m.Point, "/"))
	rel := strings.Trim(path.Join(m.Root, below), "/")
	if rel == "" {
		return "."
	}
	return rel
}

// A missing dataset would show at a place, if it were mounted.
type missing struct {
	at string
	snapshot.Gap
	onlyEmpty bool // it is missed only where it leaves an empty directory
}

// unmounted lists the datasets of the pool that are not mounted and whose mount point
// lies below a selected path.
func unmounted(t *volume.Table, all []dataset, v volume.Volume, paths []string, shown []place) []missing {
	var found []missing
	for _, d := range all {
		if d.mounted || !strings.HasPrefix(d.mountPoint, "/") || mountedHere(t, d.name) {
			continue
		}
		at, ok := placeOf(t, v, path.Clean(d.mountPoint), shown)
		if !ok || at == "." || !selected(paths, at) {
			continue
		}
		m := missing{at: at, Gap: snapshot.Gap{Path: at}, onlyEmpty: d.canMount == "off"}
		switch {
		case d.keyStatus == "unavailable":
			m.Code, m.Reason = problem.VolumeLost, "dataset "+d.name+" is not mounted: its key is not loaded"
		case d.canMount == "on":
			m.Code, m.Reason = problem.VolumeLost, "dataset "+d.name+" is not mounted, though it is to be (canmount=on)"
		default:
			m.Reason = "dataset " + d.name + " is not mounted (canmount=" + d.canMount + ")"
		}
		found = append(found, m)
	}
	return found
}

// mountedHere knows mounts that zfs does not: those of legacy datasets elsewhere.
func mountedHere(t *volume.Table, dataset string) bool {
	return slices.ContainsFunc(t.Volumes(), func(v volume.Volume) bool { return v.FSType == "zfs" && v.Source == dataset })
}

// placeOf finds a live path in the view: by the deepest mount that it lies in.
func placeOf(t *volume.Table, v volume.Volume, point string, shown []place) (at string, ok bool) {
	var deepest volume.Mounted
	for _, of := range t.Volumes() {
		for _, m := range of.Mounts {
			if !m.Hidden && below(m.Point, point) && len(m.Point) >= len(deepest.Mount.Point) {
				deepest = volume.Mounted{Volume: of, Mount: m}
			}
		}
	}
	if deepest.Mount.Point == point || deepest.Volume.FSType != "zfs" {
		return "", false
	}
	for _, p := range shown {
		if p.dataset == deepest.Volume.Source {
			return path.Join(p.at, within(deepest.Mount, point)), true
		}
	}
	return "", false
}
