// Package coordinator takes one capture: snapshots of volumes by several
// providers, with applications at rest around the instant. It knows the order
// of the calls of packages snapshot and writer, and how long each may take; it
// plans nothing, reads nothing and writes nothing.
//
// # The order
//
//	providers prepare ─ writers prepare ─ quiet time ─ providers get ready
//	  ─ writers freeze, all at once
//	    ─ hold all ─ commit all ─ resume all
//	  ─ thaw all, at once
//
// Who can suspend writes is held around the one who cannot, so that one such
// (a btrfs file system, a ZFS pool: atomic by themselves) and any number of the
// others show one instant together.
//
// # Who waits for whom
//
// Applications wait for nobody: when the window closes, all are thawed at
// once and all writes resumed, also when a call does not come back. Such a call
// is waited for afterwards, for as long as Undo says, and what it then brings
// is undone; the capture has failed. Between the first Freeze and the last
// Thaw nothing is logged and nothing is written.
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
	"stillpoint/internal/writer"
)

// A Plan says what is taken, and for how long applications may rest.
type Plan struct {
	ID        string // the set's, as snapshot.Provider's Prepare wants it
	Groups    []Group
	Instances []Resting

	// OneInstant refuses a set that cannot promise to be of one.
	OneInstant bool

	// Quiet waits for a moment in which the volumes are quiet, when all is
	// prepared and nobody rests yet. Nil waits for none.
	Quiet func(context.Context) error

	// Intend is told before each step that changes something on the host, and
	// can refuse it. It is not called while anything is held. Nil for none.
	Intend func(Group) error

	// Hush is called with true before the first application rests, and with
	// false when all go on. Nil for none.
	Hush func(bool)

	// Timed is told all steps, when it is over, nothing is held and nobody
	// rests, however it ended. Nil for none.
	Timed func([]Step)

	Limits Limits
}

// A Group is what one provider takes together.
type Group struct {
	Provider snapshot.Provider
	Targets  []snapshot.Target
}

// A Resting instance is brought to rest around the instant.
type Resting struct {
	writer.Instance
	OneInstant bool // all its paths are in the set, and that is of one instant
}

// Limits are how long things may take. Zero values stand for the defaults.
type Limits struct {
	Prepare time.Duration // one writer's Prepare; 60 s
	Window  time.Duration // that applications rest; 60 s
	Hold    time.Duration // from the first Hold to the last Commit; 10 s
	Commit  time.Duration // the same, where nobody rests and no writes are suspended: a slow disk may take its time; 2 min
	Undo    time.Duration // one step of undoing, and waiting for a late one; 60 s
}

func (l Limits) orDefault() Limits {
	for _, d := range []struct {
		of    *time.Duration
		value time.Duration
	}{{&l.Prepare, time.Minute}, {&l.Window, time.Minute}, {&l.Hold, 10 * time.Second}, {&l.Commit, 2 * time.Minute}, {&l.Undo, time.Minute}} {
		if *d.of == 0 {
			*d.of = d.value
		}
	}
	return l
}

// A Capture is what Take took.
type Capture struct {
	Snapshots []Taken // in the order of the groups and their targets
	Rests     []Rest  // in the order of the instances
	Notes     []writer.Note

	// OneInstant says that all snapshots show one instant: promised by the
	// way they were taken, or seen by the times of their parts.
	OneInstant bool
	Skew       time.Duration // between the first and the last instant; 0 where it is one
	Held       time.Duration // from the first Hold to the last Resume
}

// A Taken snapshot, and who took it.
type Taken struct {
	snapshot.Snapshot
	Provider string
}

// Unwrap returns the provider's own.
func (t Taken) Unwrap() snapshot.Snapshot { return t.Snapshot }

// A Rest is how an instance came through the capture.
type Rest struct {
	ID     string
	State  writer.State
	Rested time.Duration // from the begin of Freeze to the end of Thaw
	Err    error         // why it failed
}

// A Failure is why there is no capture.
type Failure struct {
	Err  error // has a code
	Left error // what could not be undone; nil when nothing stayed
}

func (f *Failure) Error() string { return errors.Join(f.Err, f.Left).Error() }

// Unwrap returns both.
func (f *Failure) Unwrap() []error {
	if f.Left == nil {
		return []error{f.Err}
	}
	return []error{f.Err, f.Left}
}

// Take takes a capture. When it fails nothing rests, nothing is held, and
// nothing stays; the error is a *Failure then, and the rests come with it.
func Take(ctx context.Context, p Plan) (*Capture, []Rest, error) {
	t := &taking{Plan: p, undo: context.WithoutCancel(ctx)}
	t.Limits = p.Limits.orDefault()
	for _, in := range p.Instances {
		t.rests = append(t.rests, Rest{ID: in.About().ID, State: writer.Stable})
	}
	if p.Timed != nil {
		defer func() { p.Timed(t.steps.end()) }()
	}
	c, err := t.take(ctx)
	if err != nil {
		f := &Failure{Err: err, Left: t.abort()}
		return nil, t.ended(), f
	}
	c.Rests = t.ended()
	return c, c.Rests, nil
}

// A taking is a Take under way.
type taking struct {
	Plan
	undo     context.Context // not cancelled with the job
	pending  []pending
	sessions []*session
	late     func() error // waits for what did not come back in time, and undoes it
	steps    steps

	mu    sync.Mutex
	rests []Rest
}

// ended is how the instances came through. What comes late changes it no more.
func (t *taking) ended() []Rest {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.rests)
}

// pending is what a group has prepared.
type pending struct {
	snapshot.Pending
	name    string
	volumes []string
}

func (t *taking) take(ctx context.Context) (*Capture, error) {
	if err := t.prepare(ctx); err != nil {
		return nil, err
	}
	if err := t.prepareWriters(ctx); err != nil {
		return nil, err
	}
	if t.Quiet != nil {
		end := t.steps.begin(Step{What: "quiet"})
		err := t.Quiet(ctx)
		end(err)
		if err != nil {
			return nil, errors.Join(err, t.end())
		}
	}
	if err := t.ready(ctx); err != nil {
		return nil, errors.Join(err, t.end())
	}
	fault.Point("capture:prepared")
	return t.window(ctx)
}

// ready does what would take time while applications rest, or while writes to other
// volumes are suspended already.
func (t *taking) ready(ctx context.Context) error {
	suspending := 0
	for _, p := range t.pending {
		suspending += suspends(p)
	}
	if len(t.sessions) == 0 && suspending < 2 {
		return nil
	}
	for _, p := range t.pending {
		if r, ok := p.Pending.(snapshot.Readier); ok {
			end := t.steps.begin(p.step("ready"))
			err := r.Ready(ctx)
			end(err)
			if err != nil {
				return failed("make ready for snapshots", p.name, err)
			}
		}
	}
	return nil
}

// prepare lets all providers prepare, one after the other: what is slow about
// it is the disk.
func (t *taking) prepare(ctx context.Context) error {
	for _, g := range t.Groups {
		if t.Intend != nil {
			if err := t.Intend(g); err != nil {
				return err
			}
		}
		made := pending{name: g.Provider.Name()}
		for _, of := range g.Targets {
			made.volumes = append(made.volumes, string(of.Volume.ID))
		}
		end := t.steps.begin(made.step("prepare"))
		var err error
		made.Pending, err = g.Provider.Prepare(ctx, t.ID, g.Targets)
		end(err)
		if err != nil {
			return failed("prepare snapshots", made.name, err)
		}
		t.pending = append(t.pending, made)
	}
	if t.OneInstant && t.instants() > 1 {
		return problem.Newf(problem.NotOneInstant, "", "the selection needs snapshots of %d instants, and one was demanded", t.instants())
	}
	return nil
}

// instants is how many instants the set may need: those who suspend writes are
// all held at one, also while one who does not commits.
func (t *taking) instants() int {
	n := 0
	for _, p := range t.pending {
		if !p.Suspends() {
			n += p.Instants()
		}
	}
	return max(n, 1)
}

// waited tells whether anybody has to wait for the instant.
func (t *taking) waited() bool {
	return len(t.sessions) > 0 || slices.ContainsFunc(t.pending, func(p pending) bool { return p.Suspends() })
}

// abort undoes what was prepared, and waits for what is late.
func (t *taking) abort() error {
	var errs []error
	if t.late != nil {
		errs = append(errs, t.late())
	}
	for _, p := range t.pending {
		errs = append(errs, failed("undo the preparation", p.name, within(t.undo, t.Limits.Undo, p.Abort)))
	}
	return errors.Join(errs...)
}

// within calls f, and waits no longer for it than so long.
func within(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	done := make(chan error, 1)
	go func() {
		defer cancel()
		done <- f(ctx)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		select {
		case err := <-done: // both came at once
			return err
		default:
			return context.Cause(ctx)
		}
	}
}

// failed gives an error of a provider a code, unless it has one.
func failed(what, provider string, err error) error {
	if err == nil {
		return nil
	}
	if problem.CodeOf(err) == problem.Uncatalogued && !errors.Is(err, context.Canceled) {
		err = problem.New(problem.SnapshotFailed, "", err)
	}
	return fmt.Errorf("%s with %s: %w", what, provider, err)
}
