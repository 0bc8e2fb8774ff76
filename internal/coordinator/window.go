package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

// window is the time in which applications rest. It ends when all snapshots are
// taken, when something fails, or when it is over; what is still under way then
// is left to late.
func (t *taking) window(ctx context.Context) (*Capture, error) {
	if t.Hush != nil {
		t.Hush(true)
		defer t.Hush(false)
	}
	over := problem.Newf(problem.WindowClosed, "", "the snapshots were not taken within %s, so all applications were let go on", t.Limits.Window)
	ctx, cancel := context.WithTimeoutCause(ctx, t.Limits.Window, over)
	defer cancel()
	in := &instant{taking: t, done: make(chan struct{})}
	go in.run(ctx)
	select {
	case <-in.done:
	case <-ctx.Done():
	}
	cancel() // whoever still works has no more time
	resumed := make(chan error, 1)
	go func() { resumed <- in.resume() }()
	notes, thawed := t.thaw()
	err := <-resumed
	select {
	case <-in.done:
		err = errors.Join(in.err, err, thawed)
	default:
		err = errors.Join(context.Cause(ctx), err, thawed)
	}
	if err != nil {
		t.late = in.undo
		return nil, err
	}
	c := &Capture{Snapshots: in.taken, Notes: notes, Held: in.held()}
	c.OneInstant, c.Skew = in.span()
	return c, nil
}

// An instant is what happens while all applications rest.
type instant struct {
	*taking
	done  chan struct{} // closed when run has returned
	taken []Taken       // after done
	err   error         // after done

	mu         sync.Mutex
	holding    []pending // whose Hold was called
	closed     bool      // no Hold may begin any more
	began, end time.Time
}

func (in *instant) run(ctx context.Context) {
	defer close(in.done)
	if in.err = in.freeze(ctx); in.err != nil {
		return
	}
	over := problem.Newf(problem.SnapshotFailed, "", "writes could not be suspended and the snapshots taken within %s", in.Limits.Hold)
	ctx, cancel := context.WithTimeoutCause(ctx, in.Limits.Hold, over)
	defer cancel()
	if in.err = in.hold(ctx); in.err == nil {
		in.err = in.commit(ctx)
	}
	if in.err == nil && ctx.Err() != nil {
		in.err = context.Cause(ctx)
	}
}

// hold suspends writes, one provider after the other: each has an order of its
// own for volumes that lie on others.
func (in *instant) hold(ctx context.Context) error {
	for _, p := range in.pending {
		if !in.holds(p) {
			return context.Cause(ctx)
		}
		if err := p.Hold(ctx); err != nil {
			return failed("hold writes", p.name, because(ctx, err))
		}
	}
	return nil
}

// holds notes that Hold is called, unless it is too late for that.
func (in *instant) holds(p pending) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return false
	}
	if len(in.holding) == 0 {
		in.began = time.Now()
	}
	in.holding = append(in.holding, p)
	return true
}

// commit takes first the one that cannot be held.
func (in *instant) commit(ctx context.Context) error {
	order := slices.Clone(in.pending)
	slices.SortStableFunc(order, func(a, b pending) int { return suspends(a) - suspends(b) })
	all := map[string][]snapshot.Snapshot{}
	defer func() {
		for _, p := range in.pending { // also those of a set that fails, to be released
			for _, s := range all[p.name] {
				in.taken = append(in.taken, Taken{s, p.name})
			}
		}
	}()
	for _, p := range order {
		snaps, err := p.Commit(ctx)
		all[p.name] = snaps
		if err != nil {
			return failed("take snapshots", p.name, because(ctx, err))
		}
	}
	return nil
}

func suspends(p pending) int {
	if p.Suspends() {
		return 1
	}
	return 0
}

// because is the reason for which a context ended, where that is why something
// failed.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) && !errors.Is(err, cause) {
		return fmt.Errorf("%w (%w)", cause, err)
	}
	return err
}

// resume lets writes go on, everywhere at once: a provider that does not come
// back must not keep the others suspended. What fails is tried a second time,
// because nothing else is left to do.
func (in *instant) resume() error {
	in.mu.Lock()
	in.closed = true
	holding := slices.Clone(in.holding)
	in.mu.Unlock()
	errs := make([]error, len(holding))
	var wait sync.WaitGroup
	for i, p := range holding {
		wait.Go(func() {
			for range 2 {
				errs[i] = failed("resume writes", p.name, within(in.undoing(), in.Limits.Undo, p.Resume))
				if errs[i] == nil {
					return
				}
			}
		})
	}
	wait.Wait()
	in.mu.Lock()
	defer in.mu.Unlock()
	in.end = time.Now()
	return errors.Join(errs...)
}

func (in *instant) undoing() context.Context { return in.taking.undo }

// undo is for a capture that has failed. It waits for the one who has not come
// back, lets writes go on that he has suspended since, and releases what he
// took.
func (in *instant) undo() error {
	<-in.done
	errs := []error{in.resume()}
	for _, s := range in.taken {
		err := within(in.undoing(), in.Limits.Undo, s.Release)
		if err != nil && problem.CodeOf(err) == problem.Uncatalogued {
			err = problem.New(problem.ReleaseFailed, s.ID(), err)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// held is for how long writes were suspended.
func (in *instant) held() time.Duration {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.began.IsZero() {
		return 0
	}
	return in.end.Sub(in.began)
}

// span tells whether all parts show one instant, and else how far apart the
// first and the last are.
func (in *instant) span() (one bool, skew time.Duration) {
	var first, last time.Time
	for _, s := range in.taken {
		for _, p := range s.Parts() {
			if first.IsZero() || p.Taken.Before(first) {
				first = p.Taken
			}
			if p.Taken.After(last) {
				last = p.Taken
			}
		}
	}
	if skew = last.Sub(first); skew == 0 || in.instants() == 1 {
		return true, 0
	}
	return false, skew
}
