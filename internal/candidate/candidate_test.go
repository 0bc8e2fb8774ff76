package candidate

import (
	"context"
	"errors"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A provider that only answers. It takes every volume but for those that it has an
// error for.
type provider struct {
	snapshot.Provider
	name  string
	err   error
	asked *[]string
}

func (p provider) Name() string { return p.name }

func (p provider) Check(context.Context, volume.Volume) error {
	*p.asked = append(*p.asked, p.name)
	return p.err
}

// A looker says something else when it only looks.
type looker struct{ provider }

func (p looker) Look(context.Context, volume.Volume) error {
	*p.asked = append(*p.asked, p.name+" looks")
	return nil
}

var plain = volume.Volume{ID: "id", FSType: "ext4"}

func code(c problem.Code) error { return problem.Newf(c, string(plain.ID), "says %s", c) }

// rig makes providers called a, b, c … of their answers.
func rig(answers ...error) (all []snapshot.Provider, asked *[]string) {
	asked = &[]string{}
	for i, err := range answers {
		all = append(all, provider{name: string(rune('a' + i)), err: err, asked: asked})
	}
	return all, asked
}

// Who takes a volume, who is asked, and what is said when nobody does.
func TestChoose(t *testing.T) {
	const none, nowhere = problem.NoProvider, problem.CacheNowhere
	for name, c := range map[string]struct {
		answers []error
		want    string // who takes it
		code    problem.Code
		says    string
		asked   string
	}{
		"the first":             {[]error{nil, nil}, "a", "", "", "a"},
		"the next":              {[]error{code(none), nil}, "b", "", "", "a b"},
		"no place":              {[]error{code(nowhere), nil}, "b", "", "", "a b"},
		"no room in the pool":   {[]error{code(problem.PoolFull), nil}, "b", "", "", "a b"},
		"busy":                  {[]error{code(problem.Busy), nil}, "b", "", "", "a b"},
		"read-only":             {[]error{code(problem.VolumeReadOnly), nil}, "b", "", "", "a b"},
		"hindered alone":        {[]error{code(none), code(nowhere), code(problem.Busy), code(none)}, "", nowhere, "says cache-nowhere", "a b c d"},
		"suspended":             {[]error{code(problem.DeviceSuspended), nil}, "", problem.DeviceSuspended, "says device-suspended", "a"},
		"stuck after no place":  {[]error{code(nowhere), code(problem.LVMStuck), nil}, "", problem.LVMStuck, "says lvm-stuck", "a b"},
		"cancelled":             {[]error{context.Canceled, nil}, "", problem.CodeOf(context.Canceled), "canceled", "a"},
		"nobody":                {[]error{code(none), code(none)}, "", none, "id: no snapshot provider can take this ext4 volume (a: says no-provider; b: says no-provider)", "a b"},
		"there is none at all":  {nil, "", none, "no snapshot provider", ""},
		"an error with a story": {[]error{problem.New(none, "id", errors.Join(errors.New("one"), errors.New("two")))}, "", none, "(a: one\ntwo)", "a"},
	} {
		all, asked := rig(c.answers...)
		p, err := Choose(t.Context(), all, plain, Check)
		who := ""
		if p != nil {
			who = p.Name()
		}
		if who != c.want || (err == nil) != (c.want != "") || err != nil && problem.CodeOf(err) != c.code {
			t.Errorf("%s: %q, %v", name, who, err)
		}
		if err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: it says %q", name, err)
		}
		if got := strings.Join(*asked, " "); got != c.asked {
			t.Errorf("%s: asked were %q", name, got)
		}
	}
}

// All are asked, and the one is marked that Choose returns.
func TestAll(t *testing.T) {
	none := code(problem.NoProvider)
	for name, c := range map[string]struct {
		answers []error
		want    string // chosen: those with a star
	}{
		"first":        {[]error{nil, nil}, "a* b"},
		"next":         {[]error{none, nil, nil}, "a b* c"},
		"no place":     {[]error{code(problem.CacheNowhere), nil}, "a b*"},
		"nobody":       {[]error{none}, "a"},
		"ended before": {[]error{none, code(problem.DeviceSuspended), nil, nil}, "a b c(is not asked, for what b says ends a backup) d(is not asked, for what b says ends a backup)"},
	} {
		all, asked := rig(c.answers...)
		var got []string
		for _, of := range All(t.Context(), all, plain, Check) {
			text := of.Provider.Name()
			if of.Chosen {
				text += "*"
			}
			if of.Passed != "" {
				text += "(" + of.Passed + ")"
			}
			got = append(got, text)
		}
		if text := strings.Join(got, " "); text != c.want || len(*asked) != len(all) {
			t.Errorf("%s: %s, asked %v", name, text, *asked)
		}
		p, err := Choose(t.Context(), all, plain, Check)
		if (err == nil) != strings.Contains(c.want, "*") || err == nil && !strings.Contains(c.want, p.Name()+"*") {
			t.Errorf("%s: Choose says %v, %v", name, p, err)
		}
	}
}

// Who has a way to look is asked in that way.
func TestLook(t *testing.T) {
	all, asked := rig(code(problem.NoProvider), code(problem.NoProvider))
	all[1] = looker{all[1].(provider)}
	if p, err := Choose(t.Context(), all, plain, Look); err != nil || p.Name() != "b" {
		t.Errorf("%v, %v", p, err)
	}
	if _, err := Choose(t.Context(), all, plain, Check); problem.CodeOf(err) != problem.NoProvider {
		t.Errorf("Check looks only: %v", err)
	}
	if got := strings.Join(*asked, ", "); got != "a, b looks, a, b" {
		t.Errorf("asked: %s", got)
	}
}
