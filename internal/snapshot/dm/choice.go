package dm

import (
	"cmp"
	"context"
	"path/filepath"
	"strings"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A choice is a Provider with other wishes for its cache files.
type choice struct {
	*Provider
	asked snapshot.CacheChoice
	rules cachefile.Rules
}

// WithCache is the provider with a choice.
func (p *Provider) WithCache(c snapshot.CacheChoice) (snapshot.Provider, error) {
	if c == (snapshot.CacheChoice{}) {
		return p, nil
	}
	w := &choice{Provider: p, asked: c, rules: p.rules}
	if c.Dir != "" && !filepath.IsAbs(c.Dir) {
		return nil, problem.Newf(problem.Usage, c.Dir, "the folder for cache files must be an absolute path, such as /var/cache/stillpoint")
	}
	if c.Maximum != "" {
		size, err := cachefile.ParseSize(c.Maximum)
		if err != nil {
			return nil, problem.New(problem.Usage, "", err)
		}
		w.rules.Maximum = size
	}
	return w, nil
}

// WithCache lets the first choice stand where the second one has none.
func (w *choice) WithCache(c snapshot.CacheChoice) (snapshot.Provider, error) {
	return w.Provider.WithCache(snapshot.CacheChoice{Dir: cmp.Or(c.Dir, w.asked.Dir), Maximum: cmp.Or(c.Maximum, w.asked.Maximum)})
}

// Check is that of the provider, with the choice.
func (w *choice) Check(ctx context.Context, v volume.Volume) error {
	return w.check(ctx, v, w.rules, w.asked.Dir)
}

// Prepare is that of the provider, with the choice.
func (w *choice) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	return prepared(w.prepare(ctx, id, ts, storing{rules: w.rules, dir: w.asked.Dir, duty: Name}))
}

// Together is that of the provider, with the choice.
func (w *choice) Together(ctx context.Context, vs []volume.Volume) error {
	_, _, err := w.place(ctx, vs, w.rules, w.asked.Dir)
	return err
}

// Together is nil when there is a place for the cache files of all volumes, which
// is on none of them.
func (p *Provider) Together(ctx context.Context, vs []volume.Volume) error {
	_, _, err := p.place(ctx, vs, p.rules, "")
	return err
}

// Beside is that of the provider, with the choice.
func (w *choice) Beside(ctx context.Context, vs, others []volume.Volume) error {
	return w.beside(ctx, vs, others, w.rules, w.asked.Dir)
}

// Beside is nil when that place is on none of the others either.
func (p *Provider) Beside(ctx context.Context, vs, others []volume.Volume) error {
	return p.beside(ctx, vs, others, p.rules, "")
}

// CachePlaces lists places with the choice.
func (w *choice) CachePlaces(ctx context.Context, v volume.Volume) ([]snapshot.CachePlace, error) {
	return w.places(ctx, v, w.rules, w.asked.Dir)
}

// CachePlaces lists the places for the cache file of a volume.
func (p *Provider) CachePlaces(ctx context.Context, v volume.Volume) ([]snapshot.CachePlace, error) {
	return p.places(ctx, v, p.rules, "")
}

func (p *Provider) places(ctx context.Context, v volume.Volume, r cachefile.Rules, dir string) ([]snapshot.CachePlace, error) {
	chosen, candidates, err := p.place(ctx, []volume.Volume{v}, r, dir)
	var all []snapshot.CachePlace
	for _, c := range candidates {
		place := snapshot.CachePlace{Dir: c.Dir, Volume: c.Volume, Chosen: c.Chosen, Reason: strings.Join(c.Against, ", ")}
		if place.Reason == "" {
			place.Reason = strings.Join(c.For, ", ")
		}
		if c.Chosen {
			place.Maximum = chosen.Limits[0].Maximum
		}
		all = append(all, place)
	}
	return all, err
}

var (
	_, _ snapshot.CacheChooser = (*Provider)(nil), (*choice)(nil)
	_, _ snapshot.Neighbour    = (*Provider)(nil), (*choice)(nil)
)
