package lvm

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	stack "stillpoint/internal/snapshot/dm"
)

// both is a set of thin and of classic volumes, which show one instant: all of them are
// frozen while first the one kind is taken and then the other.
type both struct {
	id     string
	thin   *set
	thick  stack.Roomed
	isThin []bool // of each target

	aborted atomic.Bool
	mu      sync.Mutex // held while Commit or Abort runs
	taken   bool
	half    []snapshot.Snapshot // of a Commit that did not succeed
}

// A kind is what is done with the volumes of one kind.
type kind interface {
	snapshot.Readier
	stack.Steps
}

// Instants is 1.
func (b *both) Instants() int { return 1 }

// Suspends is true.
func (b *both) Suspends() bool { return true }

// Ready writes what is dirty.
func (b *both) Ready(ctx context.Context) error {
	return b.each(func(k kind) error { return k.Ready(ctx) })
}

// Hold freezes all file systems, after what is dirty was written on all of them: no
// writer of the one kind waits for what the other has still to write.
func (b *both) Hold(ctx context.Context) error {
	if err := b.each(func(k kind) error { return k.WriteAhead(ctx) }); err != nil {
		return err
	}
	return b.each(func(k kind) error { return k.Freeze(ctx) })
}

// Resume thaws them.
func (b *both) Resume(ctx context.Context) error {
	return b.each(func(k kind) error { return k.Resume(ctx) })
}

// each does the same for both kinds at the same time.
func (b *both) each(do func(kind) error) error {
	thin := make(chan error, 1)
	go func() { thin <- do(b.thin) }()
	err := do(b.thick)
	return errors.Join(<-thin, err)
}

// Commit takes all snapshots.
func (b *both) Commit(ctx context.Context) ([]snapshot.Snapshot, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	instant := time.Now()
	thin, err := b.thin.commitAt(ctx, instant)
	if err != nil {
		return nil, err
	}
	thick, err := b.thick.CommitAt(ctx, instant)
	if err == nil { // the thin ones are still held
		err = coded(b.id, b.thin.hold.InTime())
	}
	if err == nil && b.aborted.Load() {
		err = problem.Newf(problem.SnapshotFailed, b.id, "the set was aborted while its snapshots were made")
	}
	if err != nil {
		b.half = slices.Concat(thin, thick)
		return nil, err
	}
	b.taken = true
	var all []snapshot.Snapshot
	for _, isThin := range b.isThin { // in the order of the targets
		from := &thick
		if isThin {
			from = &thin
		}
		all = append(all, (*from)[0])
		*from = (*from)[1:]
	}
	return all, nil
}

// Abort undoes Prepare, and a Commit that failed, also where one kind was taken.
func (b *both) Abort(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.aborted.Store(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken {
		return nil
	}
	// Before anything else: what undoes the one kind runs programs, which the writers of
	// the other are not to wait for.
	errs := []error{b.Resume(ctx)}
	errs = append(errs, b.thin.Abort(ctx), b.thick.Abort(ctx))
	for _, s := range b.half {
		errs = append(errs, s.Release(ctx))
	}
	return errors.Join(errs...)
}

var _ snapshot.Readier = (*both)(nil)
