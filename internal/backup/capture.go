package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"stillpoint/internal/coordinator"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A capture is the snapshots of one run.
type capture struct {
	snaps   map[volume.ID]snapshot.Snapshot
	readers map[volume.ID]snapshot.Reader // of those that can be read without their Root
	taken   *coordinator.Capture
}

// capture takes the snapshots of all volumes of the plan. When it fails,
// nothing is held and nothing is left.
func (b *backing) capture(ctx context.Context, p *plan, apps *quiesce.Applications, oneInstant bool) (*capture, error) {
	r := b.run
	var intended []string
	end := r.step(job.StepCapture)
	taken, err := apps.Take(ctx, coordinator.Plan{
		ID: r.set, Groups: r.groups(p), OneInstant: oneInstant, Limits: r.e.limits(),
		Intend: func(g coordinator.Group) error {
			name := g.Provider.Name()
			intended = append(intended, name+" "+r.set)
			return r.intend(job.Event{Step: job.StepCapture, Intent: intended[len(intended)-1], Text: "take snapshots with " + name, Data: intentData(g.Targets)})
		},
		Quiet: b.quiet(p),
		Hush:  r.hush,
		Timed: r.captured,
	})
	end(err)
	if err != nil {
		r.failed(err, intended)
		return nil, err
	}
	c := &capture{snaps: map[volume.ID]snapshot.Snapshot{}, taken: taken}
	for _, s := range taken.Snapshots {
		c.snaps[s.Volume()] = s.Snapshot
		r.event(job.Event{Step: job.StepCapture, Volume: string(s.Volume()), Intent: s.ID(), Text: "snapshot " + s.ID() + " taken",
			Data: map[string]any{"instant": s.Parts()[0].Taken.UTC().Format(time.RFC3339Nano), "parts": len(s.Parts())}})
	}
	if err := r.logged(); err != nil { // also what was kept while writes were suspended
		c.release(ctx, r, p, "the log cannot be written")
		return nil, err
	}
	return c, nil
}

// groups are the volumes of the plan by provider.
func (r *run) groups(p *plan) (gs []coordinator.Group) {
	for _, pr := range r.e.Providers {
		g := coordinator.Group{Provider: pr}
		for _, v := range p.volumes {
			if v.provider == pr {
				g.Targets = append(g.Targets, snapshot.Target{Volume: v.volume, Paths: v.paths})
			}
		}
		if len(g.Targets) > 0 {
			gs = append(gs, g)
		}
	}
	return gs
}

func intentData(ts []snapshot.Target) map[string]any {
	var ids []string
	for _, t := range ts {
		ids = append(ids, string(t.Volume.ID))
	}
	return map[string]any{"volumes": ids}
}

// hush keeps the log in memory while writes are suspended.
func (r *run) hush(on bool) {
	if on {
		r.log.Hold()
		return
	}
	if err := r.log.Release(); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.logErr = cmp.Or(r.logErr, err)
	}
}

// failed notes what a capture that failed could not undo.
func (r *run) failed(err error, intended []string) {
	var f *coordinator.Failure
	if errors.As(err, &f) && f.Left != nil {
		r.tally.Exception(problem.ReleaseFailed, "")
		r.except(job.Exception{Code: problem.ReleaseFailed, Reason: problem.Text(f.Left), Step: job.StepRelease})
		r.event(job.Event{Severity: job.Error, Step: job.StepRelease, Code: problem.ReleaseFailed, Text: problem.Text(f.Left)})
		return
	}
	for _, i := range intended {
		r.event(job.Event{Step: job.StepCapture, Done: i, Text: "nothing was taken"})
	}
}

// undone undoes something within a time of its own.
func undone(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	return do(ctx)
}

// release deletes the snapshots of the capture, in the plan's order.
func (c *capture) release(ctx context.Context, r *run, p *plan, why string) {
	if len(c.snaps) > 0 {
		defer r.step(job.StepRelease)(nil)
	}
	c.unread()
	for _, v := range p.volumes {
		if s := c.snaps[v.volume.ID]; s != nil {
			r.release(ctx, job.StepRelease, s, why)
			delete(c.snaps, v.volume.ID)
		}
	}
}

// while does something that reads the snapshots, and ends it when one of them is given
// up: what that keeps is free only when nothing of it is open any more.
func (c *capture) while(ctx context.Context, do func(context.Context) error) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	for _, s := range c.snaps {
		if y, ok := snapshot.Ask[snapshot.Yielder](s); ok {
			go func() {
				select {
				case <-y.Yielded():
					stop()
				case <-reading.Done():
				}
			}()
		}
	}
	err := do(reading)
	if err != nil && reading.Err() != nil && ctx.Err() == nil {
		return cmp.Or(c.ask(), err) // what a step says that was interrupted is a consequence
	}
	return err
}

// ask returns the error of the first snapshot that did not stay good.
func (c *capture) ask() error {
	for _, s := range c.snaps {
		if err := lost(s); err != nil {
			return fmt.Errorf("everything read from it is suspect: %w", err)
		}
	}
	return nil
}

// lost is why a snapshot did not stay good; nil where it did.
func lost(s snapshot.Snapshot) error {
	err := s.Err()
	if err != nil && problem.CodeOf(err) == problem.Uncatalogued {
		err = problem.New(problem.SnapshotLost, s.ID(), err)
	}
	return err
}

// span is the first instant of all parts of all snapshots, and how far the
// last is from it.
func (c *capture) span() (first time.Time, skew time.Duration) {
	var last time.Time
	for _, s := range c.snaps {
		for _, p := range s.Parts() {
			if first.IsZero() || p.Taken.Before(first) {
				first = p.Taken
			}
			if p.Taken.After(last) {
				last = p.Taken
			}
		}
	}
	return first, last.Sub(first)
}
