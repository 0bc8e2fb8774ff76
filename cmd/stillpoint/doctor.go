package main

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"time"

	"stillpoint/internal/agent"
	"stillpoint/internal/backup"
	"stillpoint/internal/doctor"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/repository"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/clock"
	"stillpoint/internal/tool"
	"stillpoint/internal/volume"
)

// checks are all that doctor has to make.
func (f *doctorFlags) checks(ctx context.Context, e *env, args []string) ([]doctor.Check, error) {
	choice, err := f.cache.choice(e)
	if err != nil {
		return nil, err
	}
	en, err := newEngine(e, nil, choice)
	if err != nil {
		return nil, err
	}
	repo := e.getenv("STILLPOINT_REPO")
	last, err := lastJob(en.JobDir)
	if err != nil {
		return nil, err
	}
	h := doctor.Here()
	s, err := doctor.Read(ctx, func(ctx context.Context) (doctor.Subject, error) { return f.subject(ctx, args, repo) })
	if problem.Is(err, problem.LookFailed) && ctx.Err() == nil {
		return []doctor.Check{doctor.Volumes(nil, err), doctor.Pressure(h), doctor.Rivals(h), doctor.Timers(h), doctor.Clock(time.Now(), last, clock.Synchronised), doctor.Folders(en.JobDir), doctor.Repository(s, repo, repository.Exists)}, nil
	}
	if err != nil {
		return nil, err
	}
	choices := doctor.Choose(ctx, s, en.Providers)
	caching := doctor.Caching{Choice: choice}
	var watched []volume.Volume
	for _, v := range s.Volumes {
		_, uses := choices[v.ID].Provider.(snapshot.CacheChooser)
		if uses || problem.Is(choices[v.ID].Err, problem.CacheNowhere) {
			caching.Volumes = append(caching.Volumes, v)
		}
		if gains(choices[v.ID].Provider) {
			watched = append(watched, v)
		}
	}
	caches := doctor.CacheVolumes(s, caching)
	own := doctor.Own(h)
	return []doctor.Check{
		doctor.Volumes(s.Table, nil),
		doctor.Selection(s),
		doctor.Providers(s, choices),
		doctor.Kernel(h, s, choices),
		doctor.Plan(s, func(ctx context.Context) error {
			return en.Planned(ctx, backup.Options{Paths: s.Paths, Exclude: f.exclude}, repo)
		}),
		doctor.Resident(watched, watching),
		doctor.Cache(h, s, caching),
		doctor.Fragments(s, caches),
		doctor.Pressure(h),
		doctor.Rivals(h),
		doctor.Timers(h),
		doctor.Scanners(h, s, caches, own),
		doctor.Pools(s, tool.Run),
		doctor.Swap(s),
		doctor.Others(s),
		doctor.Applications(s, func(ctx context.Context) ([]*quiesce.Application, error) {
			return quiesce.List(ctx, en.Applications, selectionOf(s.Table, s.Entered()))
		}),
		doctor.Clock(time.Now(), last, clock.Synchronised),
		doctor.Leftovers(left(en.Leftovers), left(en.Clean)),
		doctor.Namespaces(h, s, own),
		doctor.Folders(en.JobDir),
		doctor.Repository(s, repo, repository.Exists),
	}, nil
}

func (f *doctorFlags) subject(ctx context.Context, args []string, repo string) (s doctor.Subject, err error) {
	paths, err := absolute(args)
	if err != nil {
		return s, err
	}
	t, err := host(ctx)
	if err != nil {
		return s, err
	}
	if repo != "" {
		if repo, err = filepath.Abs(repo); err != nil {
			return s, err
		}
	}
	excludes, err := backup.Excludes(ctx, paths, f.exclude, repo)
	if err != nil {
		return s, err
	}
	return doctor.NewSubject(t, paths, excludes)
}

// gains tells whether a provider takes better snapshots where an agent stays.
func gains(p snapshot.Provider) bool {
	a, ok := p.(*agent.Provider)
	if !ok {
		return false
	}
	_, ok = a.Local.(snapshot.Watcher)
	return ok
}

// watching asks the resident agent.
func watching(ctx context.Context) (w doctor.Watching, err error) {
	s, err := agent.NewControl(agentSocket()).Status(ctx)
	for _, v := range s.Volumes {
		if v.Watched {
			w.Volumes = append(w.Volumes, v.Volume)
		}
	}
	return w, err
}

// lastJob is the one with the latest time.
func lastJob(dir string) (last doctor.Last, err error) {
	all, err := job.List(dir)
	if problem.Is(err, problem.StateLost) || len(all) == 0 {
		return last, nil // what the folder has to say, its own check says
	}
	newest := slices.MaxFunc(all, func(x, y job.Summary) int { return x.Started.Compare(y.Started) })
	return doctor.Last{What: "job " + newest.ID, At: newest.Started}, nil
}

func left(of func(context.Context) ([]backup.Leftover, error)) func(context.Context) ([]doctor.Left, error) {
	return func(ctx context.Context) (all []doctor.Left, err error) {
		found, err := of(ctx)
		for _, l := range found {
			all = append(all, doctor.Left{Text: cmp.Or(l.Text, l.ID), Code: l.Code})
		}
		return all, err
	}
}
