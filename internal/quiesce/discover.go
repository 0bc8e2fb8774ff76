package quiesce

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// discover asks all writers at once. Who does not come back in time, as on a disk that
// does not answer, is left behind.
func discover(ctx context.Context, ws []writer.Writer, sel Selection, tell func(Event)) []writer.Instance {
	found := make([][]writer.Instance, len(ws))
	errs := make([]error, len(ws))
	var wait sync.WaitGroup
	for i, w := range ws {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, discovering)
			defer cancel()
			found[i], errs[i] = discoverBy(ctx, w, writer.Scope{Paths: slices.Concat(sel.Paths, sel.Mounts)})
		})
	}
	wait.Wait()
	for i, err := range errs {
		if err != nil {
			tell(Event{Text: "looking for " + ws[i].Name() + ": " + problem.Text(err), Err: coded(err)})
		}
	}
	return slices.Concat(found...)
}

// leaving is for a writer that hears that its time is over.
const leaving = time.Second

func discoverBy(ctx context.Context, w writer.Writer, s writer.Scope) ([]writer.Instance, error) {
	type result struct {
		found []writer.Instance
		err   error
	}
	done := make(chan result, 1)
	go func() {
		found, err := w.Discover(ctx, s)
		done <- result{found, err}
	}()
	select {
	case r := <-done:
		return r.found, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.found, r.err
	case <-time.After(leaving):
		return nil, problem.New(problem.WriterTimeout, "", fmt.Errorf("no answer: %w", context.Cause(ctx)))
	}
}

func coded(err error) error {
	if problem.CodeOf(err) == problem.Uncatalogued {
		return problem.New(problem.WriterFailed, "", err)
	}
	return err
}

// add adds an instance that the selection concerns.
func (a *Applications) add(in writer.Instance, sel Selection) {
	app := &Application{About: in.About(), Whole: true, State: writer.Stable, instance: in}
	concerned := false
	for _, p := range app.Paths {
		id, taken := sel.Volume(p)
		if !slices.Contains(app.Volumes, id) {
			app.Volumes = append(app.Volumes, id)
		}
		selected := len(sel.Paths) == 0 || slices.ContainsFunc(sel.Paths, func(s string) bool { return within(s, p) })
		app.Whole = app.Whole && taken && selected && !sel.live(p)
		concerned = concerned || sel.concerns(p)
	}
	switch {
	case len(app.Paths) > 0 && (concerned || len(sel.Paths) == 0):
	case len(app.Paths) == 0 && (app.Everywhere || len(sel.Paths) == 0):
		app.Whole = false
	case len(app.Paths) == 0:
		a.unknown = append(a.unknown, app)
		return
	default:
		return
	}
	app.Policy = a.s.Policies[app.Writer]
	if app.Policy == Default {
		app.Policy = Fail
		if app.Whole && len(app.Volumes) == 1 {
			app.Policy = Crash
		}
	}
	if sel.OneAtATime && len(app.Volumes) > 1 {
		app.State, app.Err = writer.Failed, &writer.Error{ID: app.ID, Step: writer.AtCheck, Err: problem.Newf(problem.NotOneInstant, "",
			"its files lie on %d volumes, and these are taken one at a time", len(app.Volumes))}
	}
	if at := slices.IndexFunc(app.Paths, sel.live); at >= 0 && app.Err == nil {
		app.State, app.Err = writer.Failed, &writer.Error{ID: app.ID, Step: writer.AtCheck, Err: problem.Newf(problem.NotApplication, "",
			"its files in %s are read live: no snapshot is taken of their volume", app.Paths[at])}
	}
	a.All = append(a.All, app)
}
