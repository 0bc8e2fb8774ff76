package lvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
)

// A place is the logical volume that a snapshot is put in.
type place struct {
	lv    logical
	proof string
	thin  uint64 // its number in the pool

	transaction string // of the pool, before LVM has said that
}

// in tells whether LVM has the place as it was made.
func (p *place) in(lvs []logical) bool {
	return slices.ContainsFunc(lvs, func(lv logical) bool {
		return lv.UUID == p.lv.UUID && lv.Thin == strconv.FormatUint(p.thin, 10)
	})
}

// makePlaces makes an empty thin volume for each target, and has the pools forget
// them. LVM goes on knowing them.
func (s *set) makePlaces(ctx context.Context) error {
	by, err := self()
	if err != nil {
		return problem.New(problem.SnapshotFailed, s.id, err)
	}
	for _, t := range s.targets {
		if err := t.makePlace(ctx, by); err != nil {
			return err
		}
	}
	for _, t := range s.targets {
		p, err := t.origin.pool.now(s.control)
		if err != nil {
			return t.failed("make its place", err)
		}
		t.place.transaction = p.transaction
	}
	lvs, err := s.console.list(ctx, "-S", "lv_tags=\""+tagSet+s.id+"\"")
	if err != nil {
		return coded(s.id, fmt.Errorf("ask LVM what was made: %w", err))
	}
	for _, t := range s.targets {
		if err := t.emptyPlace(lvs); err != nil {
			return err
		}
	}
	return nil
}

// makePlace makes an empty thin volume, as large as the origin.
func (t *target) makePlace(ctx context.Context, by owner) error {
	o := t.origin
	name := fmt.Sprintf("%s%s-%d", namePrefix, t.set.id, t.index)
	c := claim{set: t.set.id, of: o.lv.UUID, by: by}
	c.proof = c.digest(o.lv.GroupUUID, name)
	args := slices.Concat([]string{
		"--activate", "n", "--setactivationskip", "y", "--permission", "r", "--wipesignatures", "n",
		"--virtualsize", fmt.Sprint(o.sectors*512) + "b", "--thinpool", t.poolName(), "--name", name,
	}, quiet)
	for _, tag := range c.tags() {
		args = append(args, "--addtag", tag)
	}
	t.place = &place{lv: logical{Group: o.lv.Group, GroupUUID: o.lv.GroupUUID, Name: name}, proof: c.proof}
	if _, err := t.set.console.change(ctx, "lvcreate", args...); err != nil {
		return t.notMade(err)
	}
	fault.Point("lvm:place-made")
	return nil
}

// notMade says why lvcreate has failed. Above the administrator's threshold for
// extending the pool LVM makes no volume in it (thin_pool_below_threshold in lvm2).
func (t *target) notMade(err error) error {
	if strings.Contains(err.Error(), "reached threshold") || strings.Contains(err.Error(), "above threshold") {
		return problem.New(problem.PoolFull, t.poolName(), fmt.Errorf("the thin pool is above activation/thin_pool_autoextend_threshold, and was not extended: %w", err))
	}
	return t.failed("make its place", err)
}

// emptyPlace has the pool forget the volume, which must be among lvs.
func (t *target) emptyPlace(lvs []logical) error {
	i := slices.IndexFunc(lvs, func(lv logical) bool {
		_, ours := lv.read()
		return ours && lv.Name == t.place.lv.Name && lv.GroupUUID == t.place.lv.GroupUUID
	})
	if i < 0 || lvs[i].Pool != t.origin.lv.Pool {
		return t.failed("make its place", errors.New("the volume that was made is not there"))
	}
	t.place.lv = lvs[i]
	var err error
	if t.place.thin, err = strconv.ParseUint(lvs[i].Thin, 10, 24); err != nil {
		return t.failed("make its place", err)
	}
	if err := t.origin.pool.tell(t.set.control, "delete %d", t.place.thin); err != nil {
		return t.failed("empty its place", err)
	}
	fault.Point("lvm:place-emptied")
	return nil
}

// take has the pool put the snapshot in its place.
func (t *target) take(c *dm.Control) error {
	if err := t.same(c); err != nil {
		return t.failed("take the snapshot", err)
	}
	err := t.origin.pool.tell(c, "create_snap %d %d", t.place.thin, t.origin.thin)
	if t.told = err == nil; !t.told { // the number is nothing of ours
		return t.failed("take the snapshot", err)
	}
	return nil
}

// same makes sure that the origin is what its place was made for.
func (t *target) same(c *dm.Control) error {
	table, err := c.Table(t.origin.number)
	if err != nil {
		return err
	}
	if len(table) == 1 {
		o, err := thinOf(table[0])
		if err == nil && o.sectors == t.origin.sectors && o.thin == t.origin.thin && o.pool.number == t.origin.pool.number {
			return nil
		}
	}
	return errors.New("somebody has changed its logical volume, such as its size, since the snapshot was prepared")
}

func (t *target) failed(what string, err error) error {
	return coded(string(t.volume.ID), fmt.Errorf("%s: %w", what, err))
}

// coded gives a failure its code.
func coded(subject string, err error) error {
	if err == nil || problem.CodeOf(err) != problem.Uncatalogued ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	code := problem.SnapshotFailed
	switch {
	case errors.Is(err, fs.ErrPermission):
		code = problem.NotAllowed
	case errors.Is(err, syscall.ENOSPC):
		code = problem.SnapshotFull
	}
	return problem.New(code, subject, err)
}

// openOn opens a directory, or a file, that must lie on a device.
func openOn(path, number string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if same, err := onDevice(f, number); err != nil || !same {
		f.Close()
		return nil, errors.Join(fmt.Errorf("%s shows another device", path), err)
	}
	return f, nil
}
