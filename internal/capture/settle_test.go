package capture

import (
	"context"
	"slices"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/volume"
)

// A narrow has no place for the cache files of so many volumes, and may take one only.
type narrow struct {
	*fake.Provider
	most int
	only string // where that is mounted
}

func (narrow) Name() string { return "narrow" }

func (n narrow) Check(ctx context.Context, v volume.Volume) error {
	if n.only != "" && !isAt(v, n.only) {
		return problem.Newf(problem.NoProvider, string(v.ID), "is another one")
	}
	return n.Provider.Check(ctx, v)
}

func isAt(v volume.Volume, point string) bool {
	return slices.ContainsFunc(v.Mounts, func(m volume.Mount) bool { return m.Point == point })
}

func (n narrow) Together(_ context.Context, vs []volume.Volume) error {
	if len(vs) > n.most {
		return problem.Newf(problem.CacheNowhere, "", "%d volumes", len(vs))
	}
	return nil
}

// A program, or a snapshot that is kept, has the choice that a backup has: what one
// cannot take in one set, or has no place for, the next one takes. The volumes are in the
// order of the providers.
func TestSettle(t *testing.T) {
	r := newRig(t)
	table, err := volume.Read(t.Context(), volume.Host())
	r.must(err)
	for name, c := range map[string]struct {
		first narrow
		want  []string
	}{
		"all":           {narrow{r.fake, 2, ""}, []string{"narrow", "narrow"}},
		"not together":  {narrow{r.fake, 1, ""}, []string{"fake", "fake"}},
		"the inner one": {narrow{r.fake, 1, r.inner}, []string{"narrow", "fake"}},
	} {
		p, err := Make(t.Context(), table, []snapshot.Provider{c.first, r.fake}, []string{r.dir})
		r.must(err)
		for i, want := range c.want {
			if got := p.volumes[i].provider.Name(); got != want {
				t.Errorf("%s: volume %d is taken by %s", name, i, got)
			}
		}
		if first := p.volumes[0].volume; (name == "the inner one") != isAt(first, r.inner) {
			t.Errorf("%s: the first one is %s", name, first.Mounts[0].Point)
		}
	}
}
