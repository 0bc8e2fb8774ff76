package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A Choice is the provider that a backup would choose for a volume, or why there
// is none.
type Choice struct {
	Provider snapshot.Provider
	Err      error
}

// Choose asks who can take a snapshot of each volume, of all at once. For a whole
// host they may but look. Where nobody answers in time, that is why there is none.
func Choose(ctx context.Context, s Subject, ps []snapshot.Provider) map[volume.ID]Choice {
	late, cancel := context.WithTimeout(ctx, usualLimit+grace)
	defer cancel()
	ctx, stop := context.WithTimeout(late, usualLimit)
	defer stop()
	answers := make([]chan Choice, len(s.Volumes))
	for i, v := range s.Volumes {
		answers[i] = make(chan Choice, 1)
		go func() {
			p, err := chosen(ctx, s, ps, v)
			answers[i] <- Choice{p, err}
		}()
	}
	all := map[volume.ID]Choice{}
	for i, v := range s.Volumes {
		var c Choice
		select {
		case c = <-answers[i]:
		case <-late.Done():
			select {
			case c = <-answers[i]:
			default:
				c.Err = late.Err()
			}
		}
		if ctx.Err() != nil && errors.Is(c.Err, context.DeadlineExceeded) {
			c = Choice{Err: problem.Newf(problem.LookFailed, "", "no answer within %s", usualLimit)}
		}
		all[v.ID] = c
	}
	return all
}

// Providers says who can take a snapshot of each volume.
func Providers(s Subject, choices map[volume.ID]Choice) Check {
	return Check{Name: "provider", Look: func(ctx context.Context) ([]Finding, error) {
		var fs []Finding
		for _, v := range s.Volumes {
			fs = append(fs, able(s, v, choices[v.ID]))
		}
		if len(fs) == 0 {
			return none("no volume holds data of this host"), ctx.Err()
		}
		return fs, ctx.Err()
	}}
}

func able(s Subject, v volume.Volume, c Choice) Finding {
	if c.Err == nil {
		f := fine("%s takes it", c.Provider.Name())
		f.Subject = at(v)
		return f
	}
	if problem.Is(c.Err, problem.LookFailed) {
		f := unknown(c.Err)
		f.Subject = at(v)
		return f
	}
	f := failed(at(v), c.Err).so("a backup that includes it fails", "see `stillpoint explain "+string(problem.CodeOf(c.Err))+"`; --exclude leaves a mounted volume out, --provider none reads its live files")
	if s.whole() {
		f.Result = Warning // nobody said that it is to be backed up
	}
	return f
}

// chosen is the provider that a backup would choose.
func chosen(ctx context.Context, s Subject, ps []snapshot.Provider, v volume.Volume) (snapshot.Provider, error) {
	var reasons, unasked []string
	var hindered error
	for _, p := range ps {
		if why := snapshot.Unasked(p); why != "" {
			unasked = append(unasked, p.Name()+": "+why)
			continue
		}
		err := check(ctx, s, p, v)
		if err == nil {
			return p, nil
		}
		// Who is the right one but hindered says more than that there is none.
		// Without a place for a cache file, the next one may do without.
		switch problem.CodeOf(err) {
		case problem.NoProvider:
			reasons = append(reasons, fmt.Sprintf("%s: %s", p.Name(), strings.TrimPrefix(problem.Text(err), string(v.ID)+": ")))
		case problem.CacheNowhere:
			hindered = cmp.Or(hindered, err)
		default:
			return nil, err
		}
	}
	if hindered != nil {
		return nil, hindered
	}
	return nil, problem.New(problem.NoProvider, "", errors.New("no provider can take this "+v.FSType+" volume ("+strings.Join(append(reasons, unasked...), "; ")+")"))
}

func check(ctx context.Context, s Subject, p snapshot.Provider, v volume.Volume) error {
	if l, ok := p.(snapshot.Looker); ok && s.whole() {
		return l.Look(ctx, v)
	}
	return p.Check(ctx, v)
}

// A Watching is what the resident agent says.
type Watching struct {
	Volumes []volume.ID // that it watches
}

// Resident asks for the resident agent where there are volumes that need one to be
// taken well.
func Resident(need []volume.Volume, ask func(ctx context.Context) (Watching, error)) Check {
	return Check{Name: "agent", Limit: 2 * usualLimit, Look: func(ctx context.Context) ([]Finding, error) {
		if len(need) == 0 {
			return none("no volume needs the resident agent"), nil
		}
		const means = "what is open already when a backup starts has to be copied while writes are suspended, and where that is too much, the backup fails with unshielded-files"
		w, err := ask(ctx)
		if problem.Is(err, problem.NoAgent) {
			return []Finding{warned(problem.NoAgent, "", "%s; it would watch %s", problem.Text(err), places(need)).
				so(means, "systemctl enable --now stillpoint-agent, best from boot on")}, nil
		}
		if err != nil {
			return nil, err
		}
		var fs []Finding
		for _, v := range need {
			if !slices.Contains(w.Volumes, v.ID) {
				fs = append(fs, warned(problem.NoAgent, at(v), "the agent does not watch it").so(means, "give the agent the volume, or no path, so that it watches all"))
			}
		}
		if len(fs) == 0 {
			fs = append(fs, fine("the agent watches %s", places(need)))
		}
		return fs, nil
	}}
}
