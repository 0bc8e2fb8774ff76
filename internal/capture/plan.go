package capture

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"stillpoint/internal/candidate"
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
	if err := p.settle(ctx, providers); err != nil {
		return nil, err
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
	provider, err := candidate.Choose(ctx, providers, v, candidate.Check)
	if err != nil {
		return err
	}
	p.volumes = append(p.volumes, planned{v, provider, []string{rel}})
	p.Places = append(p.Places, place)
	return nil
}

// settle lets providers leave to the next ones what they cannot take in one set, and
// brings the volumes into the order of the providers.
func (p *Plan) settle(ctx context.Context, providers []snapshot.Provider) error {
	set := make([]candidate.Share, len(p.volumes))
	for i, v := range p.volumes {
		set[i] = candidate.Share{Volume: v.volume, Provider: v.provider}
	}
	if err := candidate.Settle(ctx, providers, set); err != nil {
		return err
	}
	for i := range set {
		p.volumes[i].provider = set[i].Provider
	}
	slices.SortStableFunc(p.volumes, func(a, b planned) int {
		return slices.Index(providers, a.provider) - slices.Index(providers, b.provider)
	})
	return nil
}
