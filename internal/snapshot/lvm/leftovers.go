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
	stack "stillpoint/internal/snapshot/dm"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// Leftovers asks LVM for what has our tags, where a thin pool is active, or a classic
// volume in a group that may have some. In one that is not, a leftover takes room from
// nobody; it is found when the pool, or a volume of the group, is active, as one must be
// to be backed up. What is laid below classic volumes the kernel tells, without LVM.
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
	laid, laidErr := p.under().LeftInRooms(ctx) // what is not found of it keeps its room in use
	lvs, err := p.suspects(ctx, c)
	left, foreign := p.sift(lvs, laid)
	if err := errors.Join(coded("leftovers", laidErr), err); err != nil {
		return left, err // and not that something is foreign, which could be all that is wrong
	}
	return left, foreign
}

// suspects are the logical volumes that there are, where some may be ours.
func (p *Provider) suspects(ctx context.Context, c *dm.Control) ([]logical, error) {
	if !p.always {
		if some, err := anySuspect(c); err != nil || !some {
			return nil, coded("leftovers", err)
		}
	}
	lvs, err := p.console.list(ctx)
	if problem.Is(err, problem.NoProvider) {
		return nil, nil // nor are there any without LVM
	}
	if err != nil {
		return nil, coded("leftovers", fmt.Errorf("look for leftovers: %w", err))
	}
	return lvs, nil
}

// sift tells what is left over from what is in use, and from what is not ours.
func (p *Provider) sift(lvs []logical, laid []stack.LeftInRoom) ([]snapshot.Snapshot, error) {
	here, err := self()
	if err != nil {
		return nil, coded("leftovers", err)
	}
	var dead []logical
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
			dead = append(dead, lv)
		}
	}
	return lefts(p.console, dead, laid), errors.Join(errs...)
}

// lefts are the leftovers of volumes of ours, each with what is laid over it, and of
// what is laid over one that is not among them.
func lefts(console *console, dead []logical, laid []stack.LeftInRoom) []snapshot.Snapshot {
	var found []snapshot.Snapshot
	for _, lv := range dead {
		l := &leftover{console: console, lv: lv}
		l.claim, _ = lv.read()
		if i := slices.IndexFunc(laid, l.isOver); i >= 0 {
			l.laid = laid[i]
			laid = slices.Delete(laid, i, i+1)
		}
		found = append(found, l)
	}
	for _, l := range laid {
		found = append(found, l)
	}
	slices.SortFunc(found, func(a, b snapshot.Snapshot) int { return strings.Compare(a.ID(), b.ID()) })
	return found
}

// isOver tells whether what is laid below a classic volume has its originals in the
// volume that is left.
func (l *leftover) isOver(laid stack.LeftInRoom) bool {
	index, err := l.lv.index()
	return err == nil && l.lv.Type == roomType && laid.Set == l.claim.set && laid.Index == index
}

// A leftover is what a process that died left of one snapshot.
type leftover struct {
	console *console
	lv      logical
	claim   claim
	laid    snapshot.Snapshot // over a room; may be nil
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
	if l.laid != nil { // which may wait for a disk, and others may do it at the same time
		if err := l.laid.Release(ctx); err != nil {
			return err
		}
	}
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
	if lower, err := c.StatusOf(dmUUID(l.lv)); err == nil && l.lv.Type != roomType { // which is LVM's own
		if err := removeSoon(c, lower); err != nil {
			return err
		}
	}
	return removeVolume(ctx, l.console, l.lv, l.claim.proof)
}
