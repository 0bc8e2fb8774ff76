package quiesce

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stillpoint/internal/coordinator"
	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// Take takes a capture with the applications at rest. What may pass is tried
// again; who cannot be brought to rest then is treated as its policy says, and
// the capture is taken without.
func (a *Applications) Take(ctx context.Context, p coordinator.Plan) (*coordinator.Capture, error) {
	for tries := 0; ; tries++ {
		apps := a.resting()
		p.Instances = nil
		for _, app := range apps {
			p.Instances = append(p.Instances, coordinator.Resting{Instance: app.instance, OneInstant: app.Whole})
			app.Attempts++
		}
		p.Limits.Window = a.s.Window
		c, rests, err := coordinator.Take(ctx, p)
		a.note(apps, rests)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil || !passes(err, rests) {
			return nil, err
		}
		if class := writer.ClassOf(err); class != writer.NotRetryable && tries < a.s.Retries {
			a.tell(Event{Text: fmt.Sprintf("the capture failed (%s) and is tried again in %s: %s", class, a.s.Wait, problem.Text(err)), Err: err})
			if err := sleep(ctx, a.s.Wait); err != nil {
				return nil, err
			}
			continue
		}
		if gerr := a.giveUpFailed(apps); gerr != nil {
			return nil, err
		}
		tries = -1 // those that are left have their own tries
	}
}

// resting are those that are to be brought to rest.
func (a *Applications) resting() (apps []*Application) {
	for _, app := range a.All {
		if app.Treated == "" {
			apps = append(apps, app)
		}
	}
	return apps
}

// note takes notes of how they came through.
func (a *Applications) note(apps []*Application, rests []coordinator.Rest) {
	for i, r := range rests {
		app := apps[i]
		app.State, app.Rested, app.Err = r.State, r.Rested, r.Err
		if r.Err != nil {
			a.tell(Event{Application: app.ID, Text: fmt.Sprintf("attempt %d failed (%s): %s", app.Attempts, writer.ClassOf(r.Err), problem.Text(r.Err)), Err: r.Err})
		}
	}
}

// passes tells whether it was the writers, and nothing else, that failed.
func passes(err error, rests []coordinator.Rest) bool {
	var f *coordinator.Failure
	if errors.As(err, &f) && f.Left != nil {
		return false
	}
	for _, r := range rests {
		if r.Err != nil {
			return true
		}
	}
	return problem.Is(err, problem.WindowClosed)
}

// giveUpFailed gives those up that have failed. It is an error where that is not
// to be, or where there are none.
func (a *Applications) giveUpFailed(apps []*Application) error {
	var errs []error
	failed := 0
	for _, app := range apps {
		if app.Err != nil {
			failed++
			errs = append(errs, a.giveUp(app))
		}
	}
	if failed == 0 {
		return errors.New("none to give up")
	}
	return errors.Join(errs...)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return problem.New(problem.Cancelled, "", context.Cause(ctx))
	}
}
