package zfs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/sys/zfs"
)

// A remover destroys snapshots that are provably those of a record.
type remover struct {
	p        *Provider
	device   *zfs.Device
	record   *record
	patience time.Duration // for what is in use

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
	case gone(err) && renamed == "": // since a moment ago
		return r.findRenamed(ctx, in)
	case err != nil:
		return "", coded(name, err)
	}
	if in.fits(of.GUID, snap, r.record.tag()) {
		return name, nil
	}
	if renamed == "" { // another dataset may have got the name of this one
		if name, err := r.findRenamed(ctx, in); err != nil || name != "" {
			return name, err
		}
	}
	return "", foreign(name, "is not the snapshot that is on record")
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
		name, err := r.find(ctx, in.Dataset, in, dataset)
		switch {
		case problem.Is(err, problem.LeftoverForeign):
			continue // the snapshot of another one of the set, or a copy
		case err != nil:
			return "", err // it may be this one
		case name != "":
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
	if names, ok = r.names[pool]; ok {
		return names, nil
	}
	if names, err = r.p.snapshots(ctx, pool); err == nil {
		r.names[pool] = names
	}
	return names, err
}

// fits tells whether a snapshot that was found is provably the one on record.
func (in intent) fits(dataset uint64, snap zfs.Stats, tag string) bool {
	return dataset == in.GUID && snap.Properties[property] == tag && (in.Snapshot == 0 || snap.GUID == in.Snapshot)
}

// busyLimit is how long a mount may take to go, after it was told to, or with its
// process, while somebody waits.
const busyLimit = 10 * time.Second

// remove destroys snapshots of a pool. When it fails, done are those of them that are
// gone all the same.
func (r *remover) remove(ctx context.Context, pool string, names []string) (done []string, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := r.letGo(ctx, pool, names); err != nil {
		return nil, err
	}
	err = r.destroy(ctx, pool, names)
	if err == nil {
		return names, nil
	}
	var inUse zfs.Failures
	if !errors.As(err, &inUse) {
		return nil, err
	}
	// All or none are destroyed by a call: those that can be do not wait for the others.
	rest := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return inUse[name] != nil })
	if len(rest) > 0 && r.destroy(ctx, pool, rest) == nil {
		done = rest
	}
	return done, err
}

// letGo ends our holds.
func (r *remover) letGo(ctx context.Context, pool string, names []string) error {
	err := r.p.zfs.do(ctx, callLimit, "release of holds on "+pool, func() error { return r.device.Release(pool, prefix+r.record.set, names) })
	if err != nil && !gone(err) {
		return coded(pool, err)
	}
	fault.Point("zfs:releasing")
	return nil
}

// destroy destroys all or none, and waits a while for what is in use.
func (r *remover) destroy(ctx context.Context, pool string, names []string) error {
	for began := time.Now(); ; {
		err := r.p.zfs.do(ctx, callLimit, "destruction of snapshots on "+pool, func() error { return r.device.Destroy(pool, names) })
		if err == nil {
			fault.Point("zfs:snapshots-destroyed")
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return r.why(pool, err)
		}
		if time.Since(began) >= r.patience {
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

// others tells whether a snapshot of another dataset may still be there. It begins with
// the last, since the first are mostly released first: of many one answer is enough.
func (r *remover) others(ctx context.Context, than string) bool {
	names := slices.Sorted(maps.Keys(r.record.members))
	for _, name := range slices.Backward(names) {
		if name == than {
			continue
		}
		if found, err := r.find(ctx, name, *r.record.members[name], ""); err != nil || found != "" {
			return true
		}
	}
	return false
}
