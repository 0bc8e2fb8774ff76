package backup

import (
	"context"
	"errors"
	"slices"

	"stillpoint/internal/doctor"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// preflight looks for what would be in the way of the plan, before anything is
// touched. A failure is the end; a warning is in the report and in the log.
func (b *backing) preflight(ctx context.Context, rules *rules) error {
	s := doctor.Subject{Table: b.table, Excludes: func(path string) bool { return b.plan.leaves(rules, path) }}
	var c doctor.Caching
	for _, src := range b.plan.sources {
		s.Paths = append(s.Paths, src.path)
	}
	for _, v := range b.plan.volumes {
		s.Volumes = append(s.Volumes, v.volume)
		if _, uses := v.provider.(snapshot.CacheChooser); uses {
			c.Volumes = append(c.Volumes, v.volume)
		}
	}
	c.Apart, c.Choice = b.o.OneAtATime, b.e.Cache
	last, err := b.newest(ctx)
	if err != nil {
		return err
	}
	for _, f := range doctor.Run(ctx, doctor.Preflight(doctor.Here(), s, c, b.e.now(), last)) {
		switch {
		case f.Result == doctor.Failure && b.ends(f):
			return problem.New(f.Code, f.Subject, errors.New(f.Text))
		case f.Result == doctor.Failure, f.Result == doctor.Warning, f.Result == doctor.Unknown:
			b.report.Warnings = append(b.report.Warnings, job.Concern{Code: f.Code, Subject: f.Subject, Text: f.Text})
			b.event(job.Event{Severity: job.Warning, Step: job.StepPlan, Path: f.Subject, Code: f.Code, Text: f.Text})
		}
	}
	return ctx.Err()
}

// ends tells whether a failure is the end of a backup. Where cache files go is the
// agent's choice unless we named a place, and it may know of another: who takes
// the snapshot has the last word.
func (b *backing) ends(f doctor.Finding) bool {
	return f.Code != problem.CacheNowhere || b.e.Cache != snapshot.CacheChoice{}
}

// newest is what was written last into the repository.
func (b *backing) newest(ctx context.Context) (doctor.Last, error) {
	at, err := b.repo.Recorded(ctx)
	if err != nil || at.IsZero() {
		return doctor.Last{}, err
	}
	return doctor.Last{What: "the last backup in the repository", At: at}, nil
}

// leaves tells whether a live path of a source is left out.
func (p *plan) leaves(rules *rules, path string) bool {
	if within(rules.repo.path, path) {
		return true
	}
	return !slices.ContainsFunc(p.sources, func(s source) bool {
		return within(s.path, path) && !rules.excludes(s.path, path) && !slices.ContainsFunc(s.grafts, func(g graft) bool {
			return g.empty && within(g.path, path)
		})
	})
}

// Planned makes the plan of a backup into the repository, and forgets it: the
// error is why there would be no backup. It changes nothing and is no job. The
// repository may be empty.
func (e *Engine) Planned(ctx context.Context, o Options, repo string) error {
	t, err := volumes(ctx)
	if err != nil {
		return err
	}
	rules, err := rulesFor(o.Exclude, repo, t)
	if err != nil {
		return err
	}
	_, err = makePlan(ctx, t, e.Providers, o, rules)
	return err
}

// Excludes returns what tells whether a live path below one of some selected ones
// is left out, as the patterns say, or for it is in the repository.
func Excludes(ctx context.Context, selected, patterns []string, repo string) (func(path string) bool, error) {
	t, err := volumes(ctx)
	if err != nil {
		return nil, err
	}
	if selected, err = selection(t, selected); err != nil {
		return nil, err
	}
	rules, err := rulesFor(patterns, repo, t)
	if err != nil {
		return nil, err
	}
	return func(path string) bool {
		if within(rules.repo.path, path) {
			return true
		}
		excluded := false
		for _, s := range selected {
			if within(s, path) {
				if !rules.excludes(s, path) {
					return false
				}
				excluded = true
			}
		}
		return excluded
	}, nil
}

func rulesFor(patterns []string, repo string, t *volume.Table) (*rules, error) {
	if repo == "" {
		return newRules(patterns, repoPlace{path: noPath})
	}
	return newRules(patterns, placeOf(repo, t))
}

// noPath is none that there can be.
const noPath = "\x00"
