package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A Plan says what is taken of which volume, and where it shows.
type Plan struct {
	Paths     []string // selected, resolved, none below another one
	Places    []Place  // by path: those above others come first
	Uncovered []Uncovered

	volumes []planned
}

// A Place is a selected path, or a mount below one.
type Place struct {
	Path   string
	Volume volume.ID // empty for one that is not covered
	Rel    string    // in the volume
}

// An Uncovered is a mount below a selected path that no snapshot is taken of.
type Uncovered struct {
	Path   string
	Type   string
	Code   problem.Code // empty where it is none of those that are ever taken
	Reason string
}

type planned struct {
	volume   volume.Volume
	provider snapshot.Provider
	paths    []string
}

// Make finds the volumes behind paths, and a provider for each, the first one
// that can. It changes nothing.
func Make(ctx context.Context, t *volume.Table, providers []snapshot.Provider, paths []string) (*Plan, error) {
	p := &Plan{}
	for _, path := range paths {
		r, err := t.Resolve(path)
		if err != nil {
			return nil, err
		}
		p.Paths = append(p.Paths, r)
	}
	slices.Sort(p.Paths)
	all := slices.Compact(p.Paths)
	p.Paths = slices.DeleteFunc(slices.Clone(all), func(path string) bool {
		return slices.ContainsFunc(all, func(above string) bool { return below(above, path) })
	})
	for _, path := range p.Paths {
		v, _, rel, err := t.Find(path)
		if err != nil {
			return nil, err
		}
		if err := p.add(ctx, providers, v, path, rel); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for _, b := range t.Below(path) {
			if err := p.mounted(ctx, providers, b); err != nil {
				return nil, err
			}
		}
	}
	for _, path := range all {
		for _, u := range p.Uncovered {
			if path == u.Path || below(u.Path, path) {
				return nil, problem.Newf(problem.NoProvider, path, "no snapshot can be taken of it: %s", u.Reason)
			}
		}
	}
	slices.SortStableFunc(p.Places, func(a, b Place) int { return strings.Compare(a.Path+"/", b.Path+"/") })
	return p, nil
}

// below tells whether path lies strictly below dir.
func below(dir, path string) bool {
	return path != dir && (dir == "/" || strings.HasPrefix(path, dir+"/"))
}

// mounted adds a mount below a selected path.
func (p *Plan) mounted(ctx context.Context, providers []snapshot.Provider, b volume.Mounted) error {
	u := Uncovered{Path: b.Mount.Point, Type: b.Volume.FSType}
	switch {
	case b.Volume.Kind != volume.Local:
		u.Reason = string(b.Volume.Kind) + " file system"
	case b.Volume.FSType == "zfs" && strings.Contains(b.Volume.Source, "@"):
		// No snapshot of its dataset shows the place.
		p.Uncovered = append(p.Uncovered, Uncovered{Path: u.Path, Type: u.Type, Reason: "snapshot of ZFS"})
		return nil
	case b.Mount.Deleted:
		u.Code, u.Reason = problem.FileVanished, "bind mount of something that was deleted"
	default:
		err := p.add(ctx, providers, b.Volume, b.Mount.Point, relative(b.Mount.Root))
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		u.Code, u.Reason = problem.CodeOf(err), problem.Text(err)
	}
	p.Uncovered = append(p.Uncovered, u)
	p.Places = append(p.Places, Place{Path: u.Path})
	return nil
}

func relative(root string) string {
	if r := strings.Trim(root, "/"); r != "" {
		return r
	}
	return "."
}

// add adds a path to what is taken of a volume.
func (p *Plan) add(ctx context.Context, providers []snapshot.Provider, v volume.Volume, path, rel string) error {
	place := Place{Path: path, Volume: v.ID, Rel: rel}
	for i := range p.volumes {
		if of := &p.volumes[i]; of.volume.ID == v.ID {
			if !slices.Contains(of.paths, rel) {
				of.paths = append(of.paths, rel)
			}
			p.Places = append(p.Places, place)
			return nil
		}
	}
	provider, err := choose(ctx, providers, v)
	if err != nil {
		return err
	}
	p.volumes = append(p.volumes, planned{v, provider, []string{rel}})
	p.Places = append(p.Places, place)
	return nil
}

func choose(ctx context.Context, providers []snapshot.Provider, v volume.Volume) (snapshot.Provider, error) {
	var reasons []string
	for _, p := range providers {
		if snapshot.Unasked(p) != "" { // and nobody can name one here
			reasons = append(reasons, p.Name()+": only for `backup --provider "+p.Name()+"`")
			continue
		}
		err := p.Check(ctx, v)
		if err == nil {
			return p, nil
		}
		// One that is the right one but hindered says more than that there
		// is none.
		if problem.CodeOf(err) != problem.NoProvider {
			return nil, err
		}
		reasons = append(reasons, p.Name()+": "+problem.Text(err))
	}
	return nil, problem.New(problem.NoProvider, string(v.ID), errors.New(
		"no snapshot provider can take this "+v.FSType+" volume ("+strings.Join(reasons, "; ")+")"))
}
