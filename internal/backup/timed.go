package backup

import (
	"cmp"
	"context"
	"slices"
	"time"

	"stillpoint/internal/coordinator"
	"stillpoint/internal/job"
	"stillpoint/internal/repository"
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

// decide decides what is taken and how.
func (b *backing) decide(ctx context.Context) (rules *rules, err error) {
	defer func(end func(error)) { end(err) }(b.step(job.StepPlan))
	if rules, err = b.makePlan(ctx); err != nil {
		return nil, err
	}
	return rules, b.findApplications(ctx, rules)
}

// take takes and stores all volumes, together or one after the other.
func (b *backing) take(ctx context.Context, rules *rules) error {
	if !b.o.OneAtATime {
		err := b.atOnce(ctx, rules)
		if !b.volumeByVolume(err) {
			return err
		}
	}
	return b.oneByOne(ctx, rules)
}

// record makes a backup of what is stored.
func (b *backing) record(ctx context.Context, w *repository.Writer, rules *rules, began time.Time) (err error) {
	defer func(end func(error)) { end(err) }(b.step(job.StepRecord))
	if err := w.Flush(ctx); err != nil { // what is stored is counted then
		return err
	}
	b.count(began)
	if err := w.Record(ctx, &b.rec); err != nil {
		return err
	}
	b.report.Backup = b.rec.ID
	b.report.Total.BytesStored = b.o.Progress.StoredBytes.Load()
	b.report.UnusedExcludes = rules.unused()
	b.event(job.Event{Step: job.StepRecord, Text: "backup " + b.rec.ID + " recorded"})
	return nil
}
