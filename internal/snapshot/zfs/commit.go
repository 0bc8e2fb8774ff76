package zfs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/zfs"
)

// Suspends is false: a commit is atomic by itself, and ZFS cannot be frozen (it has no
// freeze_fs; FIFREEZE says EOPNOTSUPP).
func (s *set) Suspends() bool { return false }

// Instants is the number of pools.
func (s *set) Instants() int { return len(s.pools) }

// Hold suspends nothing.
func (s *set) Hold(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.window.Store(true)
	return nil
}

// Resume ends the window, in which nothing is given up.
func (s *set) Resume(ctx context.Context) error {
	s.window.Store(false)
	return ctx.Err()
}

// Commit makes all snapshots.
func (s *set) Commit(ctx context.Context) ([]snapshot.Snapshot, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s.state != prepared {
		return nil, errors.New("commit: the set is not prepared")
	}
	s.state = failed
	if err := s.p.zfs.refuse(); err != nil {
		return nil, err
	}
	s.asked = true
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	fault.Point("zfs:snapshots-made")
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("the snapshots came too late: %w", err)
	}
	if s.aborted.Load() {
		return nil, problem.Newf(problem.SnapshotFailed, s.id, "the set was aborted while its snapshots were made")
	}
	s.state = taken
	go s.watch()
	var snaps []snapshot.Snapshot
	for _, t := range s.targets {
		snaps = append(snaps, t)
	}
	return snaps, nil
}

// take takes all pools at the same time.
func (s *set) take(ctx context.Context) error {
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs error
	for name := range maps.Keys(s.pools) {
		all.Go(func() {
			if err := s.takePool(ctx, name); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = errors.Join(errs, err)
			}
		})
	}
	all.Wait()
	s.tellApart()
	return errs
}

// takePool makes the snapshots of one pool in a single call. A dataset that nobody
// selected by itself, and that cannot be taken, is left out, and the call made again:
// it makes all or none.
func (s *set) takePool(ctx context.Context, pool string) error {
	for {
		ms := s.on(pool)
		if len(ms) == 0 {
			return problem.Newf(problem.VolumeLost, pool, "no dataset of the pool can be taken")
		}
		var names []string
		for _, m := range ms {
			names = append(names, m.name(s.id))
		}
		call := zfs.NewSnapshotting(pool, names, map[string]string{property: s.record.tag()})
		// Not given up with the context: Abort would find that ZFS is still at it, and
		// could not undo what comes a moment later.
		err := s.p.zfs.do(context.WithoutCancel(ctx), callLimit, "snapshots on "+pool, func() error { return s.device.Snapshot(call) })
		if err == nil {
			now := time.Now()
			for _, m := range ms {
				m.taken = now
			}
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		if err := s.without(ms, pool, err); err != nil {
			return err
		}
	}
}

// without leaves out the members that a call failed for, or fails itself.
func (s *set) without(ms []*member, pool string, err error) error {
	var by zfs.Failures
	if !errors.As(err, &by) {
		return coded(pool, err)
	}
	left := 0
	for _, m := range ms {
		if why := by[m.name(s.id)]; why != nil {
			if errors.Is(why, syscall.EEXIST) {
				return problem.Newf(problem.Busy, m.dataset, "it has a snapshot %s%s already", prefix, s.id)
			}
			if err := m.settle(why); err != nil {
				return err
			}
			left++
		}
	}
	if left == 0 {
		return coded(pool, err)
	}
	return nil
}

// tellApart makes the times of different pools differ: equal times say that it is one
// instant.
func (s *set) tellApart() {
	seen := map[time.Time]bool{}
	for name := range s.pools {
		ms := s.on(name)
		if len(ms) == 0 || ms[0].taken.IsZero() {
			continue
		}
		at := ms[0].taken
		for seen[at] {
			at = at.Add(1)
		}
		seen[at] = true
		for _, m := range ms {
			m.taken = at
		}
	}
}

// lock waits for the calls that change the set.
func (s *set) lock(ctx context.Context) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case s.busy <- struct{}{}:
		return func() { <-s.busy }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Abort undoes Prepare, and a Commit that failed. When it fails it is tried again until
// it does not.
func (s *set) Abort(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.aborted.Store(true)
	err := s.abort(ctx, busyLimit)
	if err != nil {
		s.p.zfs.later(&s.trying, func(ctx context.Context) error { return s.abort(ctx, 0) })
	}
	return err
}

func (s *set) abort(ctx context.Context, patience time.Duration) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if s.state == taken || s.state == over {
		return nil
	}
	if err := s.undo(ctx, patience); err != nil {
		return err
	}
	s.close()
	return nil
}
