package backup

import (
	"cmp"
	"context"
	"maps"
	"path"
	"slices"

	"stillpoint/internal/job"
	"stillpoint/internal/openfile"
	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
	"stillpoint/internal/volume"
)

// provider is the one that was chosen for a live path: the longest of those that
// the path lies at or below decides.
func (o *Options) provider(live string) string {
	name, longest := cmp.Or(o.Provider, Auto), ""
	for at, of := range o.ProviderOf {
		if at = path.Clean(at); within(at, live) && len(at) > len(longest) {
			name, longest = of, at
		}
	}
	return name
}

// resolve makes the paths that providers were chosen for those that a plan is made
// of. What is not there is as it was written: it may be the name of something that is
// only there at times.
func (o *Options) resolve(t *volume.Table) error {
	resolved := map[string]string{}
	for at, name := range o.ProviderOf {
		key := path.Clean(at)
		if r, err := t.Resolve(key); err == nil {
			key = r
		}
		if was := resolved[key]; was != "" && was != name {
			return problem.Newf(problem.Usage, key, "is to be taken with %s and with %s: one takes all of a volume", was, name)
		}
		resolved[key] = name
	}
	o.ProviderOf = resolved
	return nil
}

// heeded refuses a provider that was chosen for a path in the midst of what another
// one takes, and warns of one for a path that is not in the plan: a job may have it
// from settings of all jobs.
func (p *plan) heeded(o Options, rules *rules) error {
	for _, at := range slices.Sorted(maps.Keys(o.ProviderOf)) {
		name := o.ProviderOf[at]
		switch {
		case slices.ContainsFunc(p.sources, func(s source) bool { return s.asks(at) }):
		case slices.ContainsFunc(p.sources, func(s source) bool { return within(s.path, at) && !rules.excludes(s.path, at) }):
			return problem.Newf(problem.Usage, at, "is to be taken with %s, and is neither selected by itself nor a mount: one provider takes all of a volume", name)
		default:
			p.warnings = append(p.warnings, leftOut{at, problem.Usage, "nothing of this backup is at or below the path that the provider " + name + " was chosen for"})
		}
	}
	return nil
}

// asks tells whether a provider that is chosen for a path is that of any part of the
// source, or would be, were it not left out.
func (s *source) asks(at string) bool {
	return within(at, s.path) || slices.ContainsFunc(s.grafts, func(g graft) bool {
		return g.within == "" && within(at, g.path) || g.empty && within(g.path, at)
	})
}

// watchFiles prepares for files that are open for writing while they are read
// live, if there may be some and a treatment of them was chosen.
func (b *backing) watchFiles(ctx context.Context) (err error) {
	if b.o.OpenFiles.Way == "" || !slices.ContainsFunc(b.plan.volumes, func(v planned) bool { return v.provider == nil }) {
		return nil
	}
	b.watch, err = openfile.New(ctx, b.o.OpenFiles)
	return err
}

func (b *backing) unwatch() {
	if b.watch != nil {
		b.watch.Close()
	}
}

// opened is repository.StoreOptions.Opened. What lies in a snapshot is open for
// writing to nobody.
func (b *backing) opened(ctx context.Context, vol string, c *tree.Content) (func() error, error) {
	if c.Descriptor() < 0 || b.inSnapshot(volume.ID(vol)) {
		return func() error { return nil }, nil
	}
	return b.watch.Opened(ctx, c.Descriptor(), func(text string) {
		b.event(job.Event{Step: job.StepStore, Path: c.Path(), Text: text})
	})
}

func (b *backing) inSnapshot(id volume.ID) bool {
	for of, s := range b.cap.snaps {
		if of == id {
			return true
		}
		for _, p := range s.Parts() {
			if p.Volume == id {
				return true
			}
		}
	}
	return false
}
