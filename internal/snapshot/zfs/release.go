package zfs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"syscall"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/sys/zfs"
)

// Release destroys the snapshots that no other target of the set needs, and with the
// last one everything else of the set.
func (t *target) Release(ctx context.Context) error {
	unlock, err := t.set.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.set.state == over {
		return nil
	}
	if !t.released {
		t.released = true
		for _, name := range t.datasets() {
			t.set.members[name].users--
		}
		t.hide()
	}
	return t.set.release(ctx)
}

// hide takes the view down.
func (t *target) hide() {
	if t.view.root != nil {
		_ = t.set.space.Detach(t.view.root)
		t.view.root.Close()
		t.view.root = nil
	}
}

// release destroys what nobody needs any more. It goes on after a failure, and may be
// called again.
func (s *set) release(ctx context.Context) error {
	var errs []error
	left := 0
	for name := range maps.Keys(s.pools) {
		var ms []*member
		for _, m := range s.on(name) {
			if m.users > 0 {
				left++
				continue
			}
			if s.space != nil {
				m.unmount(s.space)
			}
			if !m.destroyed {
				ms = append(ms, m)
			}
		}
		if err := s.destroy(ctx, name, ms); err != nil {
			errs = append(errs, err)
		}
	}
	err := errors.Join(errs...)
	if err == nil && left == 0 && s.record != nil {
		err = s.record.remove()
		fault.Point("zfs:record-removed")
	}
	if err != nil {
		return problem.New(problem.ReleaseFailed, s.id, err)
	}
	if left == 0 {
		s.close()
	}
	return nil
}

// destroy destroys the snapshots of members, where they still are what is on record.
func (s *set) destroy(ctx context.Context, pool string, ms []*member) error {
	if s.record == nil || !s.asked {
		return nil // nothing can be there that is ours
	}
	r := remover{p: s.p, device: s.device, record: s.record}
	var names []string
	var errs []error
	for _, m := range ms {
		name, err := r.find(ctx, m.dataset, s.record.intent(m.dataset), "")
		switch {
		case err != nil:
			errs = append(errs, err)
		case name != "":
			names = append(names, name)
		}
	}
	if err := errors.Join(append(errs, r.remove(ctx, pool, names))...); err != nil {
		return err
	}
	for _, m := range ms {
		m.destroyed = true
	}
	return nil
}

// undo removes everything of the set, however far it came.
func (s *set) undo(ctx context.Context) error {
	for _, t := range s.targets {
		t.hide()
	}
	for _, m := range s.members {
		m.users = 0
	}
	return s.release(ctx)
}

// close gives back what ends with the process anyway.
func (s *set) close() {
	s.state = over
	for _, m := range s.members {
		if s.space != nil {
			m.unmount(s.space)
		}
	}
	if s.space != nil {
		_ = s.space.Close()
	}
	if s.device != nil {
		_ = s.device.Close()
	}
	if s.record != nil {
		s.record.close()
	}
}

// A remover destroys snapshots that are provably those of a record.
type remover struct {
	p      *Provider
	device *zfs.Device
	record *record

	pools map[uint64]string   // once asked
	names map[string][]string // of snapshots by pool, once asked
}

// find is the name of the snapshot that an intent is about, "" where there is none:
// that of the dataset by the name it had, or by another one it has now.
func (r *remover) find(ctx context.Context, dataset string, in intent, renamed string) (string, error) {
	if renamed != "" {
		dataset = renamed
	}
	name := dataset + "@" + prefix + r.record.set
	snap, err := r.p.stats(ctx, r.device, name)
	switch {
	case gone(err) && renamed == "":
		return r.findRenamed(ctx, in)
	case gone(err):
		return "", nil
	case err != nil:
		return "", coded(name, err)
	}
	of, err := r.p.stats(ctx, r.device, dataset)
	switch {
	case gone(err):
		return "", nil
	case err != nil:
		return "", coded(name, err)
	}
	if !in.fits(of.GUID, snap, r.record.tag()) {
		return "", foreign(name, "is not the snapshot that is on record")
	}
	return name, nil
}

// findRenamed looks for the snapshot in all of the pool.
func (r *remover) findRenamed(ctx context.Context, in intent) (string, error) {
	names, err := r.list(ctx, in)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		dataset, set, _ := cutSnapshot(name)
		if set != r.record.set || dataset == in.Dataset {
			continue
		}
		if name, err := r.find(ctx, in.Dataset, in, dataset); err == nil && name != "" {
			return name, nil
		}
	}
	return "", nil
}

// list lists the snapshots with our name in the pool of an intent.
func (r *remover) list(ctx context.Context, in intent) (names []string, err error) {
	if r.pools == nil {
		if r.pools, err = r.p.pools(ctx); err != nil {
			return nil, err
		}
		r.names = map[string][]string{}
	}
	pool, ok := r.pools[in.Pool]
	if !ok {
		return nil, problem.Newf(problem.VolumeLost, in.Dataset, "its pool is not imported; if it never will be, remove %s", r.record.path())
	}
	names, ok = r.names[pool]
	if !ok {
		names, err = r.p.snapshots(ctx, pool)
		r.names[pool] = names
	}
	return names, err
}

// fits tells whether a snapshot that was found is provably the one on record.
func (in intent) fits(dataset uint64, snap zfs.Stats, tag string) bool {
	return dataset == in.GUID && snap.Properties[property] == tag && (in.Snapshot == 0 || snap.GUID == in.Snapshot)
}

// busyLimit is how long a mount may take to go, after it was told to, or with its
// process.
const busyLimit = 10 * time.Second

// remove destroys snapshots of a pool.
func (r *remover) remove(ctx context.Context, pool string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := r.p.zfs.do(ctx, callLimit, "release of holds on "+pool, func() error { return r.device.Release(pool, prefix+r.record.set, names) })
	if err != nil && !gone(err) {
		return coded(pool, err)
	}
	fault.Point("zfs:releasing")
	for began := time.Now(); ; {
		err := r.p.zfs.do(ctx, callLimit, "destruction of snapshots on "+pool, func() error { return r.device.Destroy(pool, names) })
		if err == nil {
			fault.Point("zfs:snapshots-destroyed")
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return r.why(pool, err)
		}
		if time.Since(began) > busyLimit {
			return fmt.Errorf("a file of a snapshot is open, or somebody holds it (zfs holds): %w", err)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// why says what keeps snapshots from being destroyed.
func (r *remover) why(pool string, err error) error {
	if errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("somebody has made a clone of a snapshot: %w", err)
	}
	return coded(pool, err)
}
