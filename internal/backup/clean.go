package backup

import (
	"context"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

// A Leftover is something that a killed run left on this host.
type Leftover struct {
	What    string // "snapshot", "job", or "foreign" for what is not provably ours
	ID      string
	Volume  string
	Removed bool
	Code    problem.Code // why it stays
	Text    string       // for people
}

// Clean is a job that removes what killed runs left. It has a log even when it
// finds nothing: the log is there before anything is removed, and tells that
// somebody looked. What stays is an exception.
func (e *Engine) Clean(ctx context.Context) (found []Leftover, err error) {
	_, err = e.run(ctx, job.Clean, func(ctx context.Context, r *run) error {
		found, err = r.cleanUp(ctx)
		for _, l := range found {
			if l.Code != "" {
				r.tally.Exception(l.Code, l.ID)
				r.except(job.Exception{Path: l.Volume, Code: l.Code, Reason: l.Text, Step: job.StepClean})
			}
		}
		if err == nil {
			err = r.logged()
		}
		return err
	})
	return found, err
}

// Leftovers is what Clean would remove, and what it would leave. It changes
// nothing and is no job.
func (e *Engine) Leftovers(ctx context.Context) ([]Leftover, error) {
	jobs, err := job.List(e.JobDir)
	if err != nil {
		return nil, err
	}
	var found []Leftover
	for _, j := range jobs {
		if j.Status == job.Died {
			found = append(found, Leftover{What: "job", ID: j.ID, Text: "log of job " + j.ID + ", which died, would be closed"})
		}
	}
	for _, p := range e.Providers {
		snaps, foreign := leftovers(ctx, p)
		for _, s := range snaps {
			found = append(found, Leftover{What: "snapshot", ID: s.ID(), Volume: string(s.Volume()), Text: "snapshot " + s.ID() + " would be deleted"})
		}
		found = append(found, foreign...)
	}
	return found, ctx.Err()
}

// leftovers asks a provider.
func leftovers(ctx context.Context, p snapshot.Provider) (snaps []snapshot.Snapshot, foreign []Leftover) {
	snaps, err := p.Leftovers(ctx)
	for _, err := range parts(err) {
		foreign = append(foreign, Leftover{What: "foreign", Code: problem.CodeOf(err), Text: p.Name() + ": " + problem.Text(err)})
	}
	return snaps, foreign
}

// parts takes a joined error apart.
func parts(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	if err != nil {
		return []error{err}
	}
	return nil
}

// cleanUp removes what killed runs left on this host. What it could not remove
// is a warning: it is no fault of a backup that begins.
func (r *run) cleanUp(ctx context.Context) (found []Leftover, err error) {
	note := func(l Leftover, ev job.Event) {
		ev.Step, ev.Volume, ev.Code, ev.Text = job.StepClean, l.Volume, l.Code, l.Text
		if l.Code != "" || l.What == "job" {
			ev.Severity = job.Warning
		}
		r.event(ev)
		found = append(found, l)
	}
	dead, err := job.CloseDead(r.e.JobDir)
	for _, j := range dead {
		if j.Status == job.Failed { // or its log could not be closed, and is another time
			r.dead = append(r.dead, j.ID)
		}
		note(Leftover{What: "job", ID: j.ID, Removed: true, Text: "log of job " + j.ID + ", which died, closed"}, job.Event{})
	}
	if err == nil {
		_, err = job.Prune(r.e.JobDir, job.Keep)
	}
	if err != nil {
		return found, err
	}
	for _, p := range r.e.Providers {
		snaps, foreign := leftovers(ctx, p)
		for _, s := range snaps {
			l := Leftover{What: "snapshot", ID: s.ID(), Volume: string(s.Volume()), Removed: true, Text: "snapshot " + s.ID() + " deleted"}
			if err := r.intend(job.Event{Step: job.StepClean, Volume: l.Volume, Intent: l.ID, Text: "delete snapshot " + l.ID}); err != nil {
				return found, err
			}
			done := job.Event{Done: l.ID}
			rctx, cancel := context.WithTimeout(ctx, r.e.limits().Undo)
			if err := s.Release(rctx); err != nil {
				l.Removed, l.Code, l.Text = false, problem.ReleaseFailed, "snapshot "+l.ID+" could not be deleted: "+problem.Text(err)
				done = job.Event{}
			}
			cancel()
			note(l, done)
		}
		for _, l := range foreign {
			note(l, job.Event{})
		}
	}
	return found, ctx.Err()
}
