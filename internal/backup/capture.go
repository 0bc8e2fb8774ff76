package backup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// holdTime is the longest that the capture waits from the first Hold to the
// last Commit. No provider suspends writes yet; one that does keeps a shorter
// limit of its own for that. btrfs commits a transaction meanwhile, which takes
// its time on slow disks and costs nobody anything.
const holdTime = 2 * time.Minute

// A capture is the snapshots of one run.
type capture struct {
	snaps   map[volume.ID]snapshot.Snapshot
	readers map[volume.ID]snapshot.Reader // of those that can be read without their Root
}

// pending is what one provider has prepared.
type pending struct {
	snapshot.Pending
	name    string
	targets []snapshot.Target
}

// capture takes the snapshots of all volumes of the plan. When it fails,
// nothing is held and nothing is left.
func (r *run) capture(ctx context.Context, p *plan, oneInstant bool) (*capture, error) {
	ps, err := r.prepare(ctx, p)
	if err != nil {
		return nil, err
	}
	c, err := r.take(ctx, ps, oneInstant)
	if err != nil {
		r.abort(ctx, ps)
		return nil, err
	}
	return c, nil
}

func (r *run) prepare(ctx context.Context, p *plan) ([]pending, error) {
	var ps []pending
	for _, pr := range r.e.Providers {
		var ts []snapshot.Target
		for _, v := range p.volumes {
			if v.provider == pr {
				ts = append(ts, snapshot.Target{Volume: v.volume, Paths: v.paths})
			}
		}
		if len(ts) == 0 {
			continue
		}
		intent := pr.Name() + " " + r.log.ID()
		if err := r.intend(job.Event{Step: job.StepCapture, Intent: intent, Text: "take snapshots with " + pr.Name(), Data: intentData(ts)}); err != nil {
			r.abort(ctx, ps)
			return nil, err
		}
		pd, err := pr.Prepare(ctx, r.log.ID(), ts)
		if err != nil {
			r.abort(ctx, ps)
			r.event(job.Event{Step: job.StepCapture, Done: intent, Text: "nothing was prepared"})
			return nil, captureFailed("prepare snapshots", pr.Name(), err)
		}
		ps = append(ps, pending{pd, pr.Name(), ts})
	}
	return ps, nil
}

func intentData(ts []snapshot.Target) map[string]any {
	var ids []string
	for _, t := range ts {
		ids = append(ids, string(t.Volume.ID))
	}
	return map[string]any{"volumes": ids}
}

// take holds all that can be held, commits, and resumes, whatever happened.
func (r *run) take(ctx context.Context, ps []pending, oneInstant bool) (*capture, error) {
	instants := 0
	for _, p := range ps {
		instants += p.Instants()
	}
	if oneInstant && instants > 1 {
		return nil, problem.Newf(problem.NotOneInstant, "", "the selection needs snapshots of %d instants, and one was demanded", instants)
	}
	r.log.Hold()
	snaps, err := commit(ctx, ps, r.e.limits())
	if lerr := r.log.Release(); lerr != nil && err == nil {
		err = lerr
	}
	if err != nil {
		r.releaseAll(ctx, snaps, "the capture failed")
		return nil, err
	}
	c := &capture{snaps: map[volume.ID]snapshot.Snapshot{}}
	for _, s := range snaps {
		c.snaps[s.Volume()] = s
		r.event(job.Event{Step: job.StepCapture, Volume: string(s.Volume()), Intent: s.ID(), Text: "snapshot " + s.ID() + " taken",
			Data: map[string]any{"instant": s.Parts()[0].Taken.UTC().Format(time.RFC3339Nano), "parts": len(s.Parts())}})
	}
	return c, nil
}

// commit does not write, log or start anything: file systems may be held.
func commit(ctx context.Context, ps []pending, l limits) (snaps []snapshot.Snapshot, err error) {
	held := 0
	defer func() { err = errors.Join(err, resume(context.WithoutCancel(ctx), ps[:held], l.undo)) }()
	ctx, cancel := context.WithTimeout(ctx, l.hold)
	defer cancel()
	for _, p := range ps {
		held++
		if err := p.Hold(ctx); err != nil {
			return nil, captureFailed("hold writes", p.name, err)
		}
	}
	for _, p := range ps {
		s, err := p.Commit(ctx)
		if err != nil {
			return snaps, captureFailed("take snapshots", p.name, err)
		}
		snaps = append(snaps, s...)
	}
	return snaps, nil
}

// resume lets writes go on, everywhere at once: a provider that does not come
// back must not keep the others suspended. What fails is tried a second time,
// because nothing else is left to do.
func resume(ctx context.Context, ps []pending, limit time.Duration) error {
	errs := make([]error, len(ps))
	var wg sync.WaitGroup
	for i, p := range ps {
		wg.Go(func() {
			if errs[i] = undone(ctx, limit, p.Resume); errs[i] != nil {
				errs[i] = undone(ctx, limit, p.Resume)
			}
			errs[i] = captureFailed("resume writes", p.name, errs[i])
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// undone undoes something within a time of its own.
func undone(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	return do(ctx)
}

// captureFailed gives what a provider left without a code one.
func captureFailed(what, provider string, err error) error {
	if problem.CodeOf(err) == problem.Uncatalogued {
		err = problem.New(problem.SnapshotFailed, "", err)
	}
	if err != nil {
		err = fmt.Errorf("%s with %s: %w", what, provider, err)
	}
	return err
}

func (r *run) abort(ctx context.Context, ps []pending) {
	for _, p := range ps {
		if err := undone(ctx, r.e.limits().undo, p.Abort); err != nil {
			r.tally.Exception(problem.ReleaseFailed)
			r.event(job.Event{Severity: job.Error, Step: job.StepRelease, Code: problem.ReleaseFailed, Text: p.name + ": undo the preparation: " + problem.Text(err)})
		}
	}
}

func (r *run) releaseAll(ctx context.Context, snaps []snapshot.Snapshot, why string) {
	for _, s := range snaps {
		r.release(ctx, job.StepRelease, s, why)
	}
}

// release deletes the snapshots of the capture, in the plan's order.
func (c *capture) release(ctx context.Context, r *run, p *plan, why string) {
	c.unread()
	for _, v := range p.volumes {
		if s := c.snaps[v.volume.ID]; s != nil {
			r.release(ctx, job.StepRelease, s, why)
			delete(c.snaps, v.volume.ID)
		}
	}
}

// ask returns the error of the first snapshot that did not stay good.
func (c *capture) ask() error {
	for _, s := range c.snaps {
		if err := s.Err(); err != nil {
			if problem.CodeOf(err) == problem.Uncatalogued {
				err = problem.New(problem.SnapshotLost, s.ID(), err)
			}
			return fmt.Errorf("everything read from it is suspect: %w", err)
		}
	}
	return nil
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
