package backup

import (
	"context"
	"fmt"
	"slices"

	"stillpoint/internal/candidate"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// need adds a path to what is taken of a volume.
func (p *plan) need(ctx context.Context, providers []snapshot.Provider, o Options, v volume.Volume, live, rel string) error {
	name := o.provider(live)
	for i := range p.volumes {
		of := &p.volumes[i]
		if of.volume.ID != v.ID {
			continue
		}
		if of.asked != name {
			return problem.Newf(problem.Usage, live, "is to be taken with %s, and another path of the same volume with %s: one takes all of a volume", name, of.asked)
		}
		if !slices.Contains(of.paths, rel) {
			of.paths = append(of.paths, rel)
		}
		return nil
	}
	pr, err := choose(ctx, providers, name, v)
	if problem.CodeOf(err) == problem.NoProvider && name == Auto && o.OpenFiles.Way != "" {
		p.warnings = append(p.warnings, leftOut{live, problem.NoProvider, fmt.Sprintf("read live, without a snapshot, as chosen (open_files: %s): %s", o.OpenFiles, problem.Text(err))})
		pr, err = nil, nil
	}
	if err != nil {
		return err
	}
	if pr == nil && o.OneInstant {
		return notOneInstant(live)
	}
	p.volumes = append(p.volumes, planned{volume: v, provider: pr, asked: name, paths: []string{rel}})
	return nil
}

func notOneInstant(path string) error {
	return problem.Newf(problem.NotOneInstant, path, "live files are of many instants, and one was demanded")
}

// live tells whether a volume of the plan is read without a snapshot.
func (p *plan) live(id volume.ID) bool {
	return slices.ContainsFunc(p.volumes, func(v planned) bool { return v.volume.ID == id && v.provider == nil })
}

// choose returns the provider for a volume, nil for reading live.
func choose(ctx context.Context, providers []snapshot.Provider, name string, v volume.Volume) (snapshot.Provider, error) {
	switch name {
	case None:
		return nil, nil
	case Auto, "":
	default:
		for _, p := range providers {
			if p.Name() == name {
				return p, candidate.Named(ctx, p, v)
			}
		}
		return nil, problem.Newf(problem.Usage, name, "there is no such provider; `stillpoint providers` lists them")
	}
	p, err := candidate.Choose(ctx, providers, v, candidate.Check)
	if problem.CodeOf(err) == problem.NoProvider {
		err = problem.New(problem.NoProvider, string(v.ID), fmt.Errorf("%w; --exclude leaves a mounted volume out, --provider none reads live files", err))
	}
	return p, err
}
