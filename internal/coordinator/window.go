package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"stillpoint/internal/fault"
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
	if !t.waited() {
		t.Limits.Window, t.Limits.Hold = t.Limits.Commit, t.Limits.Commit
	}
	over := problem.Newf(problem.WindowClosed, "", "the snapshots were not taken within %s, so all applications were let go on", t.Limits.Window)
	ctx, cancel := context.WithTimeoutCause(ctx, t.Limits.Window, over)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	in := &instant{taking: t, done: make(chan struct{}), overdue: make(chan struct{})}
	go in.run(ctx)
	select {
	case <-in.done:
	case <-in.overdue:
	case <-ctx.Done():
	}
	t.blame(context.Cause(ctx))
	end(in.why(ctx)) // whoever still works has no more time
	resumed := make(chan error, 1)
	go func() {
		err := in.resume()
		fault.Point("capture:resumed")
		resumed <- err
	}()
	notes, thawed := t.thaw()
	err := <-resumed
	fault.Point("capture:thawed")
	select {
	case <-in.done:
		err = errors.Join(in.err, err, thawed)
	default:
		err = errors.Join(in.why(ctx), err, thawed)
	}
	if err != nil {
		t.late = in.undo
		return nil, err
	}
	if err := in.lost(); err != nil {
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
	done    chan struct{} // closed when run has returned
	overdue chan struct{} // closed when writes are suspended for too long
	taken   []Taken       // after done
	err     error         // after done

	mu         sync.Mutex
	holding    []*holding
	closed     bool // no Hold may begin any more
	began, end time.Time
}

// A holding is a provider whose Hold was called.
type holding struct {
	pending
	returned bool // from Hold
	late     bool // it had not when Resume was called
}

func (in *instant) overHold() error {
	return problem.Newf(problem.SnapshotFailed, "", "writes could not be suspended and the snapshots taken within %s", in.Limits.Hold)
}

// why tells which time was over first.
func (in *instant) why(ctx context.Context) error {
	select {
	case <-in.overdue:
		return in.overHold()
	default:
		return context.Cause(ctx)
	}
}

func (in *instant) run(ctx context.Context) {
	defer close(in.done)
	if in.err = in.freeze(ctx); in.err != nil {
		return
	}
	fault.Point("capture:at-rest")
	ctx, cancel := context.WithTimeoutCause(ctx, in.Limits.Hold, in.overHold())
	defer cancel()
	overdue := time.AfterFunc(in.Limits.Hold, func() { close(in.overdue) })
	defer overdue.Stop()
	if in.err = in.hold(ctx); in.err == nil {
		fault.Point("capture:held")
		in.err = in.commit(ctx)
	}
	if in.err == nil {
		fault.Point("capture:taken")
	}
	if in.err == nil && ctx.Err() != nil {
		in.err = context.Cause(ctx)
	}
}

// hold suspends writes, one provider after the other: each has an order of its
// own for volumes that lie on others.
func (in *instant) hold(ctx context.Context) error {
	for _, i := range holdOrder(in.Groups) {
		p := in.pending[i]
		h := in.holds(p)
		if h == nil {
			return context.Cause(ctx)
		}
		end := in.steps.begin(p.step("hold"))
		err := p.Hold(ctx)
		end(err)
		in.mu.Lock()
		h.returned = true
		in.mu.Unlock()
		if err != nil {
			return failed("hold writes", p.name, because(ctx, err))
		}
	}
	return nil
}

// holds notes that Hold is called, unless it is too late for that.
func (in *instant) holds(p pending) *holding {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return nil
	}
	if len(in.holding) == 0 {
		in.began = time.Now()
	}
	h := &holding{pending: p}
	in.holding = append(in.holding, h)
	return h
}

// commit takes first the one that cannot be held. Snapshots come in the order of
// the groups, also those of a set that fails, which are to be released.
func (in *instant) commit(ctx context.Context) error {
	var order []int
	for i := range in.pending {
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(a, b int) int { return suspends(in.pending[a]) - suspends(in.pending[b]) })
	all := make([][]snapshot.Snapshot, len(in.pending))
	defer func() {
		for i, snaps := range all {
			for _, s := range snaps {
				in.taken = append(in.taken, Taken{s, in.pending[i].name})
			}
		}
	}()
	for _, i := range order {
		var err error
		end := in.steps.begin(in.pending[i].step("commit"))
		all[i], err = in.pending[i].Commit(ctx)
		end(err)
		if err != nil {
			return failed("take snapshots", in.pending[i].name, because(ctx, err))
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
	for _, h := range in.holding {
		h.late = !h.returned
	}
	all := slices.Clone(in.holding)
	in.mu.Unlock()
	err := in.resumeAll(all)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.end = time.Now()
	return err
}

func (in *instant) resumeAll(all []*holding) error {
	errs := make([]error, len(all))
	var wait sync.WaitGroup
	for i, h := range all {
		wait.Go(func() {
			for range 2 {
				end := in.steps.begin(h.step("resume"))
				errs[i] = failed("resume writes", h.name, within(in.undoing(), in.Limits.Undo, h.Resume))
				end(errs[i])
				if errs[i] == nil {
					return
				}
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

func (in *instant) undoing() context.Context { return in.taking.undo }

// undo is for a capture that has failed. It waits for the one who has not come
// back, for some time; what he then brings is undone all the same.
func (in *instant) undo() error {
	select {
	case <-in.done:
		return in.undoNow()
	case <-time.After(in.Limits.Undo):
		go func() {
			<-in.done
			_ = in.undoNow() // nobody is there any more to be told
		}()
		return problem.Newf(problem.ReleaseFailed, "", "a call that takes snapshots has not come back for %s", in.Limits.Undo)
	}
}

// undoNow lets writes go on that were suspended after all were resumed, and
// releases what was taken.
func (in *instant) undoNow() error {
	in.mu.Lock()
	late := slices.DeleteFunc(slices.Clone(in.holding), func(h *holding) bool { return !h.late })
	in.mu.Unlock()
	errs := []error{in.resumeAll(late)}
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

// lost is why one of the snapshots is gone again, as when the agent that keeps it has
// died: nothing is known then of what it was.
func (in *instant) lost() error {
	for _, s := range in.taken {
		if len(s.Parts()) > 0 {
			continue
		}
		err := s.Err()
		if err == nil || problem.CodeOf(err) == problem.Uncatalogued {
			err = problem.New(problem.SnapshotLost, s.ID(), errors.Join(errors.New("nothing is known of it any more"), err))
		}
		return err
	}
	return nil
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
