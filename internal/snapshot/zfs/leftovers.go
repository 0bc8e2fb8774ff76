package zfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/zfs"
	"stillpoint/internal/volume"
)

// Leftovers looks through our records, and for snapshots that have our name.
func (p *Provider) Leftovers(ctx context.Context) ([]snapshot.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sets, errs := records(p.dir)
	if len(sets) == 0 && !zfs.Loaded() {
		return nil, errors.Join(errs...) // to open its device would load the module
	}
	device, err := open()
	if problem.Is(err, problem.NoProvider) && len(sets) == 0 {
		return nil, errors.Join(errs...) // a host without ZFS
	}
	if err != nil {
		return nil, errors.Join(append(errs, fmt.Errorf("look for leftovers: %w", err))...)
	}
	defer device.Close()
	pools, err := p.pools(ctx)
	if err != nil {
		if problem.Is(err, problem.NoProvider) && len(sets) == 0 {
			return nil, errors.Join(errs...)
		}
		return nil, errors.Join(append(errs, fmt.Errorf("look for leftovers: %w", err))...)
	}
	s := scan{p: p, pools: pools, errs: errs, known: map[string]bool{}}
	for _, set := range sets {
		s.record(set)
	}
	for _, pool := range slices.Sorted(maps.Values(pools)) {
		if err := ctx.Err(); err != nil {
			return s.found, err
		}
		s.strangers(ctx, pool)
	}
	return s.found, errors.Join(s.errs...)
}

// A scan goes through the records and the pools.
type scan struct {
	p     *Provider
	pools map[uint64]string
	known map[string]bool // sets on record
	found []snapshot.Snapshot
	errs  []error
}

// record looks at one set.
func (s *scan) record(set string) {
	r, err := readRecord(s.p.dir, set)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.errs = append(s.errs, err)
		}
		return
	}
	defer r.close()
	s.known[set] = true
	ok, gone, err := r.ownWithin(20 * time.Millisecond)
	if err != nil {
		s.errs = append(s.errs, err)
	}
	if !ok || gone {
		return // its process lives, or has just removed it
	}
	for _, name := range slices.Sorted(maps.Keys(r.members)) {
		s.found = append(s.found, &leftover{p: s.p, set: set, dataset: name})
	}
	if len(r.members) == 0 {
		s.found = append(s.found, &leftover{p: s.p, set: set})
	}
}

// strangers reports snapshots with our name that are of no set on record, or in a dataset
// that is not on record.
func (s *scan) strangers(ctx context.Context, pool string) {
	names, err := s.p.snapshots(ctx, pool)
	if err != nil {
		s.errs = append(s.errs, err)
		return
	}
	for _, name := range names {
		dataset, set, ok := cutSnapshot(name)
		if !ok || !s.known[set] && !s.stillUnknown(set) {
			continue
		}
		if !s.known[set] || !s.planned(ctx, set, dataset) {
			s.errs = append(s.errs, foreign(name, "is on no record of ours"))
		}
	}
}

// stillUnknown tells whether a set that had no record when the records were listed has
// none now either: it may have been made since.
func (s *scan) stillUnknown(set string) bool {
	r, err := readRecord(s.p.dir, set)
	if err != nil {
		return true
	}
	r.close()
	return false
}

// planned tells whether a dataset is one of a set's, whatever its name is now.
func (s *scan) planned(ctx context.Context, set, dataset string) bool {
	r, err := readRecord(s.p.dir, set)
	if err != nil {
		return true // it was just removed, and so are its snapshots
	}
	defer r.close()
	if _, ok := r.members[dataset]; ok {
		return true
	}
	device, err := open()
	if err != nil {
		return true
	}
	defer device.Close()
	st, err := s.p.stats(ctx, device, dataset)
	if err != nil {
		return true
	}
	for _, in := range r.members {
		if in.GUID == st.GUID {
			return true
		}
	}
	return false
}

// cutSnapshot takes the name of a snapshot of ours apart.
func cutSnapshot(name string) (dataset, set string, ok bool) {
	dataset, snap, _ := strings.Cut(name, "@")
	set, ok = strings.CutPrefix(snap, prefix)
	return dataset, set, ok
}

// A leftover is what a process that died left of one snapshot. The record goes with the
// last of its set.
type leftover struct {
	p       *Provider
	set     string
	dataset string // "" for the record alone
}

// ID is the set's and the volume's.
func (l *leftover) ID() string { return l.set + "/" + string(l.Volume()) }

// Volume is the one that the snapshot is of.
func (l *leftover) Volume() volume.ID { return volume.ID("zfs:" + l.dataset) }

// Parts is empty: a leftover is not shown.
func (l *leftover) Parts() []snapshot.Part { return nil }

// Gaps is empty.
func (l *leftover) Gaps() []snapshot.Gap { return nil }

// Root does not exist.
func (l *leftover) Root() string { return nowhere }

// Err is never nil: nobody watched a leftover.
func (l *leftover) Err() error {
	return problem.Newf(problem.SnapshotLost, l.ID(), "it is a leftover")
}

// Release removes the leftover as its process would have done.
func (l *leftover) Release(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.release(ctx); err != nil {
		return problem.New(problem.ReleaseFailed, l.ID(), err)
	}
	return nil
}

func (l *leftover) release(ctx context.Context) error {
	r, err := readRecord(l.p.dir, l.set)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // done by another one
		}
		return err
	}
	defer r.close()
	ok, gone, err := r.ownWithin(time.Second)
	switch {
	case err != nil:
		return err
	case gone:
		return nil
	case !ok:
		return problem.Newf(problem.Busy, l.set, "another process is at it")
	}
	device, err := open()
	if err != nil {
		return err
	}
	defer device.Close()
	remove := &remover{p: l.p, device: device, record: r, patience: busyLimit}
	if in, ok := r.members[l.dataset]; ok {
		found, err := remove.find(ctx, l.dataset, *in, "")
		if err != nil {
			return err
		}
		if found != "" {
			if _, err := remove.remove(ctx, poolOf(found), []string{found}); err != nil {
				return err
			}
		}
	}
	if remove.others(ctx, l.dataset) {
		return nil
	}
	return r.remove()
}
