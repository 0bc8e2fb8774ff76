package backup

import (
	"cmp"
	"slices"
	"time"

	"stillpoint/internal/coordinator"
	"stillpoint/internal/job"
)

// step notes for the timeline that a step of the job begins, and returns what is
// to be called at its end.
func (r *run) step(s job.Step) (end func(error)) {
	began := time.Now()
	return func(err error) {
		r.span(job.Span{Step: string(s), At: job.Millis(began.Sub(r.began)), Took: job.Millis(time.Since(began)), Failed: err != nil})
	}
}

func (r *run) span(s job.Span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Timeline = append(r.report.Timeline, s)
}

// captured notes the steps of a capture that is over.
func (r *run) captured(all []coordinator.Step) {
	r.captures++
	slices.SortStableFunc(all, func(a, b coordinator.Step) int { return cmp.Compare(a.Began.Sub(r.began), b.Began.Sub(r.began)) })
	for _, s := range all {
		r.span(job.Span{
			Capture: r.captures, Step: s.What, Provider: s.Provider, Volumes: s.Volumes, Application: s.Instance,
			At: job.Millis(s.Began.Sub(r.began)), Took: job.Millis(s.Took), Failed: s.Failed,
		})
	}
}
