package backup

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// Words for Options.Provider besides the names of providers.
const (
	Auto = "auto" // the first provider that can, per volume
	None = "none" // no snapshot: the live files are read, and the backup is labelled live
)

// A plan says what is read where, and who takes the snapshots.
type plan struct {
	sources []source
	volumes []planned // each once, in the order in which they were met
	leftOut []leftOut // known before anything is read

	warnings []leftOut // what is worse than it might be
}

// A source is one selected path.
type source struct {
	path   string // live, resolved
	place  place
	grafts []graft
}

// A place is where a live path lies: in a volume of the plan, or, read live,
// nowhere but at its path.
type place struct {
	volume volume.Volume
	part   volume.ID // subvolume that the place lies in, where that is known to be another one
	rel    string    // path in the volume, "." for its root
	point  string    // live path of the volume's mount that shows it
	root   string    // what of the volume shows there, relative to it
}

// A graft is a mount below a selected path, or a nested subvolume there that is
// read live.
type graft struct {
	path   string // live
	place  place
	empty  bool      // left out: the place shows as an empty directory
	within volume.ID // of a nested subvolume: the volume of the plan that it is a part of
}

type planned struct {
	volume   volume.Volume
	provider snapshot.Provider // nil: read live
	asked    string            // for this provider
	paths    []string          // relative to the volume
}

type leftOut struct {
	path   string
	code   problem.Code // empty where a rule left it out
	reason string
}

// makePlan finds the volumes behind the paths and a provider for each. It
// changes nothing.
func makePlan(ctx context.Context, t *volume.Table, providers []snapshot.Provider, o Options, rules *rules) (*plan, error) {
	p := &plan{}
	if err := o.resolve(t); err != nil {
		return nil, err
	}
	paths, err := selection(t, o.Paths)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		v, m, rel, err := t.Find(path)
		if err != nil {
			return nil, err
		}
		if o.OneInstant && o.provider(path) == None {
			return nil, notOneInstant(path)
		}
		if err := p.allowed(path, v, o); err != nil {
			return nil, err
		}
		if within(rules.repo.path, path) {
			return nil, problem.Newf(problem.Usage, path, "lies in the repository, which cannot hold itself")
		}
		if p.holds(path, rules) {
			continue
		}
		s := source{path: path, place: place{volume: v, rel: rel, point: m.Point, root: relative(m.Root)}}
		if err := p.need(ctx, providers, o, v, path, rel); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if err := p.below(ctx, t, providers, o, rules, &s); err != nil {
			return nil, err
		}
		p.sources = append(p.sources, s)
		p.leftOut = slices.DeleteFunc(p.leftOut, func(l leftOut) bool { return l.path == path })
	}
	if err := p.together(ctx, providers, o); err != nil {
		return nil, err
	}
	return p, p.heeded(o, rules)
}

// holds tells whether a selected path is read with one above it, which may
// well leave it out.
func (p *plan) holds(path string, rules *rules) bool {
	return slices.ContainsFunc(p.sources, func(s source) bool {
		return within(s.path, path) && !rules.excludes(s.path, path) && !slices.ContainsFunc(s.grafts, func(g graft) bool {
			return g.empty && within(g.path, path)
		})
	})
}

// selection resolves the paths and puts them in order, those above others first.
func selection(t *volume.Table, paths []string) ([]string, error) {
	var out []string
	for _, path := range paths {
		r, err := t.Resolve(path)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// within tells whether path is dir or lies below it.
func within(dir, path string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

func relative(root string) string {
	if r := strings.Trim(root, "/"); r != "" {
		return r
	}
	return "."
}

// allowed refuses what no snapshot can be taken of, unless it is read live.
func (p *plan) allowed(path string, v volume.Volume, o Options) error {
	switch {
	case v.Kind == volume.Virtual:
		return problem.Newf(problem.VolumeMemory, path, "lies on %s, which the kernel makes up; there are no files to back up", v.FSType)
	case o.provider(path) == None || o.OpenFiles.Way != "":
		return nil
	}
	switch v.Kind {
	case volume.Memory:
		return problem.Newf(problem.VolumeMemory, path, "lies on %s, in memory; --provider none reads it all the same", v.FSType)
	case volume.Network:
		return problem.Newf(problem.VolumeNetwork, path, "lies on %s (%s), on another host", v.FSType, v.Source)
	case volume.EFI:
		return problem.Newf(problem.VolumeEFI, path, "lies on the EFI system partition")
	}
	return nil
}

// below plans what is mounted below a selected path.
func (p *plan) below(ctx context.Context, t *volume.Table, providers []snapshot.Provider, o Options, rules *rules, s *source) error {
	for _, b := range t.Below(s.path) {
		point := b.Mount.Point
		if rules.excludes(s.path, point) {
			continue
		}
		g := graft{path: point, place: place{volume: b.Volume, rel: relative(b.Mount.Root), point: point, root: relative(b.Mount.Root)}}
		code, reason := p.rule(b, o)
		if reason != "" {
			g.empty = true
			p.leftOut = append(p.leftOut, leftOut{point, code, reason})
			if of, is := snapshotOfZFS(b.Volume); is && !p.live(of) {
				continue // no snapshot of that shows the place, so nothing has to be put over it
			}
		} else if err := p.need(ctx, providers, o, b.Volume, point, g.place.rel); err != nil {
			return fmt.Errorf("%s is mounted below %s: %w", point, s.path, err)
		}
		s.grafts = append(s.grafts, g)
	}
	p.nested(s)
	return nil
}

// snapshotOfZFS tells whether a volume is a snapshot that .zfs shows, and of what.
func snapshotOfZFS(v volume.Volume) (of volume.ID, is bool) {
	dataset, _, is := strings.Cut(v.Source, "@")
	return volume.ID("zfs:" + dataset), is && v.FSType == "zfs"
}

// rule tells why a volume below a selected path is left out.
func (p *plan) rule(b volume.Mounted, o Options) (problem.Code, string) {
	v := b.Volume
	_, isSnapshot := snapshotOfZFS(v)
	switch {
	case b.Mount.Deleted:
		// The path it had may lead to another file by now.
		return problem.FileVanished, "bind mount of something that was deleted"
	case isSnapshot:
		return "", "snapshot of ZFS"
	case o.OneFileSystem:
		return "", "another file system, left out by --one-file-system"
	case v.Kind == volume.Memory:
		return "", "memory file system (" + v.FSType + ")"
	case v.Kind == volume.Virtual:
		return "", "file system of the kernel (" + v.FSType + ")"
	case v.Kind == volume.Network:
		return "", "network file system (" + v.FSType + ")"
	case v.Kind == volume.Stacked:
		return "", "shows what lies in other volumes (" + v.FSType + ")"
	case v.Kind == volume.EFI && o.provider(b.Mount.Point) != None && o.OpenFiles.Way == "":
		return problem.VolumeEFI, "EFI system partition: no snapshot can be taken of it"
	}
	return "", ""
}

func (p *place) live(rel string) (string, bool) {
	if p.root == "." {
		return filepath.Join(p.point, rel), true
	}
	r, err := filepath.Rel(p.root, rel)
	if err != nil || r == ".." || strings.HasPrefix(r, "../") {
		return "", false
	}
	return filepath.Join(p.point, r), true
}

// shown are the live paths, within the selection, of a path in a volume.
func (p *plan) shown(id volume.ID, rel string) []string {
	var out []string
	add := func(at place, from string) {
		if live, ok := at.live(rel); ok && at.volume.ID == id && within(from, live) && !slices.Contains(out, live) {
			out = append(out, live)
		}
	}
	for _, s := range p.sources {
		add(s.place, s.path)
		for _, g := range s.grafts {
			if !g.empty {
				add(g.place, g.path)
			}
		}
	}
	return out
}
