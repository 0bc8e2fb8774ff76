package backup

import (
	"context"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/volume"
)

// A narrow takes one volume at a time.
type narrow struct{ *fake.Provider }

func (narrow) Name() string                               { return "narrow" }
func (narrow) Check(context.Context, volume.Volume) error { return nil }
func (narrow) Together(_ context.Context, vs []volume.Volume) error {
	return problem.Newf(problem.CacheNowhere, "", "%d volumes", len(vs))
}

// A nowhere would take any volume, and has no place for its cache file.
type nowhere struct{ *fake.Provider }

func (nowhere) Name() string { return "nowhere" }
func (nowhere) Check(context.Context, volume.Volume) error {
	return problem.Newf(problem.CacheNowhere, "", "no place")
}

// able takes any volume.
type able struct{ *fake.Provider }

func (able) Name() string                               { return "able" }
func (able) Check(context.Context, volume.Volume) error { return nil }

// What has no place for all cache files leaves the volumes to the next one.
func TestTogether(t *testing.T) {
	f := fake.New(t.TempDir(), fake.Options{})
	one, two := narrow{f}, able{f}
	planOf := func(asked ...string) *plan {
		p := &plan{}
		for i, a := range asked {
			p.volumes = append(p.volumes, planned{volume: volume.Volume{ID: volume.ID(rune('a' + i))}, provider: one, asked: a})
		}
		return p
	}
	for name, c := range map[string]struct {
		p     *plan
		o     Options
		rest  []snapshot.Provider
		first string
		code  problem.Code
	}{
		"both":     {planOf(Auto, ""), Options{}, []snapshot.Provider{two}, "able", ""},
		"single":   {planOf(Auto), Options{}, []snapshot.Provider{two}, "narrow", ""},
		"in turn":  {planOf(Auto, Auto), Options{OneAtATime: true}, []snapshot.Provider{two}, "narrow", ""},
		"by name":  {planOf("narrow", "narrow"), Options{}, []snapshot.Provider{two}, "narrow", problem.CacheNowhere},
		"no other": {planOf(Auto, Auto), Options{}, []snapshot.Provider{nowhere{f}}, "narrow", problem.CacheNowhere},
	} {
		err := c.p.together(t.Context(), append([]snapshot.Provider{one}, c.rest...), c.o)
		if problem.CodeOf(err) != c.code || c.p.volumes[0].provider.Name() != c.first {
			t.Errorf("%s: %s, %v", name, c.p.volumes[0].provider.Name(), err)
		}
	}
	for _, c := range []struct {
		ps   []snapshot.Provider
		want string
		code problem.Code
	}{
		{[]snapshot.Provider{nowhere{f}, two}, "able", ""},
		{[]snapshot.Provider{nowhere{f}}, "", problem.CacheNowhere},
	} {
		p, err := choose(t.Context(), c.ps, Auto, volume.Volume{ID: "a"})
		if problem.CodeOf(err) != c.code || err == nil && p.Name() != c.want {
			t.Errorf("got %v, %v", p, err)
		}
	}
}
