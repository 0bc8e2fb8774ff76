package btrfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/mount"
)

// Suspends is false: a commit is atomic by itself.
func (s *set) Suspends() bool { return false }

// Instants is the number of subvolumes: each snapshot may become part of
// another transaction, though mostly all are part of one.
func (s *set) Instants() int {
	n := 0
	for _, f := range s.filesystems {
		n += len(s.on(f))
	}
	return n
}

// Hold does nothing: the kernel does not make snapshots while a btrfs is
// frozen, and needs no freeze for the ones it makes.
func (s *set) Hold(ctx context.Context) error { return ctx.Err() }

// Resume does nothing.
func (s *set) Resume(ctx context.Context) error { return ctx.Err() }

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
	if err := s.take(); err != nil {
		return nil, err
	}
	for _, t := range s.targets {
		if err := t.complete(); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("the snapshots came too late: %w", err)
	}
	if s.aborted.Load() {
		return nil, problem.Newf(problem.SnapshotFailed, s.id, "the set was aborted while its snapshots were made")
	}
	s.state = taken
	for _, m := range s.members {
		m.closeSource()
	}
	var snaps []snapshot.Snapshot
	for _, t := range s.targets {
		snaps = append(snaps, t)
	}
	return snaps, nil
}

func (s *set) take() error {
	n := 0
	for _, f := range s.filesystems {
		n += min(len(s.on(f)), batch)
	}
	defer s.threads.more(n)()
	var all sync.WaitGroup
	errs := make(chan error, len(s.filesystems))
	for _, f := range s.filesystems {
		all.Go(func() { errs <- f.take(s.on(f)) })
	}
	all.Wait()
	close(errs)
	var err error
	for e := range errs {
		err = errors.Join(err, e)
	}
	if err != nil {
		return err
	}
	s.tellApart()
	fault.Point("btrfs:snapshot-recorded")
	return nil
}

// batch is how many snapshots are asked for at the same time. Each takes a
// thread, and reserves space for the time: 4,000 at once found no space on an
// empty file system.
const batch = 64

// take makes the snapshots of ms, all on f.
func (f *filesystem) take(ms []*member) error {
	for some := range slices.Chunk(ms, batch) {
		if err := f.takeTogether(some); err != nil {
			return err
		}
	}
	made := map[uint64]btrfs.UUID{}
	ms = slices.DeleteFunc(ms, func(m *member) bool { return m.gap != nil })
	for _, m := range ms {
		if err := m.look(); err != nil {
			return err
		}
		made[m.id] = m.snap.UUID
	}
	setInstants(ms)
	return f.record.made(made)
}

// takeTogether makes the snapshots of ms at the same time, so that they share a
// transaction. See the package comment for how that comes.
func (f *filesystem) takeTogether(ms []*member) error {
	if len(ms) > 1 {
		if err := f.record.touch(); err != nil {
			return coded(f.uuid.String(), err)
		}
		if err := btrfs.StartSync(f.top); err != nil {
			return coded(f.uuid.String(), err)
		}
	}
	var all sync.WaitGroup
	errs := make([]error, len(ms))
	for i, m := range ms {
		all.Go(func() { errs[i] = m.take() })
	}
	all.Wait()
	for i, m := range ms {
		if errors.Is(errs[i], syscall.ENOSPC) {
			errs[i] = m.take() // the others may have had it reserved
		}
		errs[i] = m.settle(errs[i])
	}
	return errors.Join(errs...)
}

// take makes the snapshot of m. It asks first whether the subvolume is still
// there: see the package comment, "What it cannot do".
func (m *member) take() error {
	if _, err := btrfs.Ask(m.source); err != nil {
		return err
	}
	if err := btrfs.Snapshot(m.source, m.place, snapshotName); err != nil {
		return err
	}
	fault.Point("btrfs:snapshot-created")
	return nil
}

// look opens the snapshot and asks it who it is.
func (m *member) look() (err error) {
	if m.root, err = mount.OpenBelow(m.place, snapshotName); err == nil {
		m.snap, err = btrfs.Ask(m.root)
	}
	if err != nil {
		return coded(string(m.volume()), err)
	}
	if !m.snap.ReadOnly || m.snap.Parent != m.uuid {
		return problem.Newf(problem.SnapshotFailed, string(m.volume()), "what lies at the place of its snapshot is not it")
	}
	return nil
}

// An instant is when a snapshot was taken.
type instant struct {
	transaction uint64
	at          time.Time
}

// setInstants finds out which snapshots show the same instant. One that was
// made by transaction T of a subvolume that last changed in transaction C shows
// it as it was at the end of each transaction from C to T. So the snapshots of
// one instant are those whose ranges have a transaction in common, and with
// the fewest instants that is each time the end of the first range to end.
func setInstants(ms []*member) {
	byEnd := slices.Clone(ms)
	slices.SortFunc(byEnd, func(a, b *member) int {
		return int(int64(a.snap.Created) - int64(b.snap.Created))
	})
	var now instant
	for _, m := range byEnd {
		if now.transaction == 0 || m.snap.Changed > now.transaction {
			now = instant{m.snap.Created, m.snap.Made}
		}
		m.at = now
	}
}

// tellApart makes the times of different instants differ: the kernel's stamps
// are as coarse as its clock tick, and equal times say that it is one instant.
func (s *set) tellApart() {
	type key struct {
		fs          btrfs.UUID
		transaction uint64
	}
	times := map[key]time.Time{}
	taken := map[time.Time]bool{}
	for _, f := range s.filesystems {
		for _, m := range s.on(f) {
			k := key{m.subvolume.fs, m.at.transaction}
			if _, ok := times[k]; !ok {
				for taken[m.at.at] {
					m.at.at = m.at.at.Add(1)
				}
				times[k], taken[m.at.at] = m.at.at, true
			}
			m.at.at = times[k]
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

// Abort undoes Prepare, and a Commit that failed.
func (s *set) Abort(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.aborted.Store(true)
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if s.state == taken || s.state == over {
		return nil
	}
	if err := s.undo(ctx); err != nil {
		return err
	}
	s.state = over
	return nil
}
