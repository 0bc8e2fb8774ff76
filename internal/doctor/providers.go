package doctor

import (
	"context"
	"errors"
	"slices"
	"strings"

	"stillpoint/internal/candidate"
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
	ask := candidate.Check
	if s.whole() {
		ask = candidate.Look
	}
	answers := make([]chan Choice, len(s.Volumes))
	for i, v := range s.Volumes {
		answers[i] = make(chan Choice, 1)
		go func() {
			p, err := candidate.Choose(ctx, ps, v, ask)
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
	f.Text = strings.ReplaceAll(f.Text, at(v)+": "+string(v.ID)+": ", at(v)+": ") // of one volume both names
	if s.whole() {
		f.Result = Warning // nobody said that it is to be backed up
	}
	return f
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
