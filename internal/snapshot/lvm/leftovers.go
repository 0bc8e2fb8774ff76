package lvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// Leftovers asks LVM for what has our tags, where a thin pool is active. In one that
// is not, a leftover takes room from nobody; it is found when the pool is active, as a
// volume in it must be to be backed up.
func (p *Provider) Leftovers(ctx context.Context) ([]snapshot.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !dm.Loaded() {
		return nil, nil
	}
	c, err := dm.Open()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil, nil // without device-mapper there is no logical volume
	}
	if err != nil {
		return nil, coded("leftovers", err)
	}
	defer c.Close()
	if some, err := anyPool(c); err != nil || !some {
		return nil, coded("leftovers", err)
	}
	lvs, err := p.console.list(ctx)
	if problem.Is(err, problem.NoProvider) {
		return nil, nil // nor without LVM
	}
	if err != nil {
		return nil, coded("leftovers", fmt.Errorf("look for leftovers: %w", err))
	}
	here, err := self()
	if err != nil {
		return nil, coded("leftovers", err)
	}
	var found []snapshot.Snapshot
	var errs []error
	for _, lv := range lvs {
		c, ours := lv.read()
		switch {
		case !lv.tagged() && !strings.HasPrefix(lv.Name, namePrefix):
		case !ours:
			errs = append(errs, problem.Newf(problem.LeftoverForeign, lv.full(), "has our name or tag, and not the proof that it is ours"))
		case c.by.machine != here.machine:
			errs = append(errs, problem.Newf(problem.LeftoverForeign, lv.full(), "was made on another machine (%s)", c.by.machine))
		case !c.by.lives(here):
			found = append(found, &leftover{console: p.console, lv: lv, claim: c})
		}
	}
	slices.SortFunc(found, func(a, b snapshot.Snapshot) int { return strings.Compare(a.ID(), b.ID()) })
	return found, errors.Join(errs...)
}

// anyPool tells whether there is a thin pool of LVM that has a volume. It is some
// calls to the kernel that wait for nothing, and no command of LVM, which reads all
// disks.
func anyPool(c *dm.Control) (bool, error) {
	all, err := c.List()
	if err != nil {
		return false, err
	}
	for _, d := range all {
		if d, err = c.Status(d.Number); err != nil && !errors.Is(err, dm.ErrNone) { // or it has gone
			return false, err
		}
		if isPool(d) {
			return true, nil
		}
	}
	return false, nil
}

// A leftover is what a process that died left of one snapshot.
type leftover struct {
	console *console
	lv      logical
	claim   claim
}

// ID is the set's and the logical volume's.
func (l *leftover) ID() string { return l.claim.set + "/" + string(l.Volume()) }

// Volume is the one that the snapshot is of, by its logical volume: its file
// system's UUID is not on record.
func (l *leftover) Volume() volume.ID { return volume.ID("lvm:" + l.lv.full()) }

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
	unlock, err := lockLeftovers(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := dm.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	if upper, err := c.StatusOf(dmUUID(l.lv) + upperSuffix); err == nil {
		if err := removeUpper(c, upper); err != nil {
			return err
		}
	}
	if lower, err := c.StatusOf(dmUUID(l.lv)); err == nil {
		if err := removeLower(c, lower); err != nil {
			return err
		}
	}
	return removeVolume(ctx, l.console, l.lv, l.claim.proof)
}
