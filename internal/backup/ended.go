package backup

import (
	"context"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

// tell tells who wants to know how this job ended, and those that died. That it
// takes no longer than people want to wait changes nothing in how it ended. Those that
// died come first: of several ends of a job of one name, the last is told last.
func (r *run) tell(ctx context.Context) {
	if ctx.Err() != nil {
		ctx = context.WithoutCancel(ctx)
	}
	for _, id := range r.dead {
		j, err := job.Excerpt(r.e.JobDir, id, func(job.Event) bool { return false })
		if err == nil && j.Report != nil {
			r.e.Ended(ctx, j.Header, j.Report, r.event)
		} else if err != nil {
			r.event(job.Event{Severity: job.Warning, Step: job.StepNotify, Code: problem.CodeOf(err), Text: "nobody is told of job " + id + ", which died: " + problem.Text(err)})
		}
	}
	r.e.Ended(ctx, r.log.Header(), r.report, r.event)
}
