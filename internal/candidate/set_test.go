package candidate

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A joiner takes so many volumes in one set; a neighbour so many, others included.
type joiner struct {
	provider
	most int
	code problem.Code
}

func (j *joiner) Together(_ context.Context, vs []volume.Volume) error { return j.can(len(vs)) }

func (j *joiner) can(n int) error {
	if n > j.most {
		return problem.Newf(j.code, "", "%d volumes", n)
	}
	return nil
}

type neighbour struct{ *joiner }

func (n neighbour) Beside(_ context.Context, vs, others []volume.Volume) error {
	return n.can(len(vs) + len(others))
}

// What one cannot take in the set goes to the next one, unless people want it or nobody
// else can take it.
func TestSettle(t *testing.T) {
	const nowhere = problem.CacheNowhere
	var asked []string
	named := func(name string, err error) provider { return provider{name: name, err: err, asked: &asked} }
	of := func(most int) *joiner { return &joiner{named("joiner", nil), most, nowhere} }
	able, unable := named("able", nil), named("unable", code(problem.NoProvider))
	for name, c := range map[string]struct {
		first snapshot.Provider
		rest  []snapshot.Provider
		set   string // each volume: f, of the first; F, of it by name; o, of another one; -, of nobody
		want  string
		code  problem.Code
	}{
		"room for all":             {of(2), []snapshot.Provider{able}, "ff", "joiner joiner", ""},
		"no room":                  {of(1), []snapshot.Provider{able}, "ff", "able able", ""},
		"no room, beside others":   {of(1), []snapshot.Provider{able}, "ffo", "able able other", ""},
		"others are none of its":   {of(1), []snapshot.Provider{able}, "fo-", "joiner other -", ""},
		"the next one but one":     {of(1), []snapshot.Provider{unable, able}, "ff", "able able", ""},
		"by name":                  {of(1), []snapshot.Provider{able}, "FF", "joiner joiner", nowhere},
		"one by name":              {of(1), []snapshot.Provider{able}, "Ff", "joiner able", ""},
		"two by name":              {of(1), []snapshot.Provider{able}, "FfF", "joiner able joiner", nowhere},
		"nobody else":              {of(1), []snapshot.Provider{unable}, "ff", "joiner joiner", nowhere},
		"nothing of it":            {of(0), []snapshot.Provider{able}, "oo-", "other other -", ""},
		"alone":                    {of(0), []snapshot.Provider{able}, "f-", "joiner -", ""},
		"another reason":           {&joiner{named("joiner", nil), 1, problem.NotOneInstant}, []snapshot.Provider{able}, "ff", "joiner joiner", problem.NotOneInstant},
		"a neighbour, with room":   {neighbour{of(3)}, []snapshot.Provider{able}, "ffo", "joiner joiner other", ""},
		"a neighbour, without":     {neighbour{of(2)}, []snapshot.Provider{able}, "ffo", "able able other", ""},
		"a neighbour, nobody else": {neighbour{of(2)}, []snapshot.Provider{unable}, "ffo", "joiner joiner other", ""},
		"a neighbour, by name":     {neighbour{of(2)}, []snapshot.Provider{able}, "FFo", "joiner joiner other", ""},
		"a neighbour, nowhere":     {neighbour{of(1)}, []snapshot.Provider{unable}, "ffo", "joiner joiner other", nowhere},
		"a neighbour that is busy": {neighbour{&joiner{named("joiner", nil), 1, problem.Busy}}, []snapshot.Provider{able}, "fo", "joiner other", problem.Busy},
	} {
		other := named("other", nil)
		var set []Share
		for i, kind := range c.set {
			s := Share{Volume: volume.Volume{ID: volume.ID(fmt.Sprint(i))}, Named: kind == 'F'}
			switch kind {
			case 'f', 'F':
				s.Provider = c.first
			case 'o':
				s.Provider = other
			}
			set = append(set, s)
		}
		err := Settle(t.Context(), append([]snapshot.Provider{other, c.first}, c.rest...), set)
		var got []string
		for i, s := range set {
			who := "-"
			if s.Provider != nil {
				who = s.Provider.Name()
			}
			got = append(got, who)
			if moved := who == "able"; moved != (s.Left != nil) {
				t.Errorf("%s: volume %d, of %s: %v", name, i, who, s.Left)
			}
		}
		if text := strings.Join(got, " "); text != c.want || problem.CodeOf(err) != c.code && (err != nil || c.code != "") {
			t.Errorf("%s: %s, %v", name, text, err)
		}
	}
}

// What goes to a next one that has no place for all either goes on.
func TestSettleTwice(t *testing.T) {
	var asked []string
	first, second := &joiner{provider{name: "first", asked: &asked}, 1, problem.CacheNowhere}, &joiner{provider{name: "second", asked: &asked}, 2, problem.CacheNowhere}
	last := provider{name: "last", asked: &asked}
	set := []Share{{Provider: first}, {Provider: first}, {Provider: second}}
	if err := Settle(t.Context(), []snapshot.Provider{first, second, last}, set); err != nil {
		t.Error(err)
	}
	for _, s := range set {
		if s.Provider.Name() != "last" {
			t.Errorf("%s takes one", s.Provider.Name())
		}
	}
}
