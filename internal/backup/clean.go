package backup

import (
	"context"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
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

// Clean removes what killed runs left, or with dry only looks.
func (e *Engine) Clean(ctx context.Context, dry bool) ([]Leftover, error) {
	found, err := e.deadJobs(dry)
	if err == nil && !dry {
		_, err = job.Prune(e.JobDir, job.Keep)
	}
	if err != nil {
		return found, err
	}
	for _, p := range e.Providers {
		left, err := p.Leftovers(ctx)
		for _, s := range left {
			l := Leftover{What: "snapshot", ID: s.ID(), Volume: string(s.Volume())}
			switch {
			case dry:
				l.Text = "snapshot " + l.ID + " would be deleted"
			default:
				rctx, cancel := context.WithTimeout(ctx, e.limits().undo)
				if err := s.Release(rctx); err != nil {
					l.Code, l.Text = problem.ReleaseFailed, "snapshot "+l.ID+" could not be deleted: "+err.Error()
				} else {
					l.Removed, l.Text = true, "snapshot "+l.ID+" deleted"
				}
				cancel()
			}
			found = append(found, l)
		}
		for _, err := range parts(err) {
			found = append(found, Leftover{What: "foreign", Code: problem.CodeOf(err), Text: p.Name() + ": " + err.Error()})
		}
	}
	return found, ctx.Err()
}

func (e *Engine) deadJobs(dry bool) ([]Leftover, error) {
	var dead []job.Summary
	var err error
	if dry {
		var all []job.Summary
		all, err = job.List(e.JobDir)
		for _, s := range all {
			if s.Status == job.Died {
				dead = append(dead, s)
			}
		}
	} else {
		dead, err = job.CloseDead(e.JobDir)
	}
	var found []Leftover
	for _, d := range dead {
		l := Leftover{What: "job", ID: d.ID, Removed: !dry, Text: "log of job " + d.ID + ", which died, closed"}
		if dry {
			l.Text = "log of job " + d.ID + ", which died, would be closed"
		}
		found = append(found, l)
	}
	return found, err
}
