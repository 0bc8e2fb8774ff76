package lvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
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
	lvs, err := s.console.list(ctx, "-S", "lv_tags=\""+tagSet+s.id+"\"")
	if err != nil {
		return fmt.Errorf("ask LVM what was made: %w", err)
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
		return t.failed("make its place", err)
	}
	fault.Point("lvm:place-made")
	return nil
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
	if err := t.set.control.Message(t.origin.pool.number, 0, fmt.Sprintf("delete %d", t.place.thin)); err != nil {
		return t.failed("empty its place", err)
	}
	fault.Point("lvm:place-emptied")
	return nil
}

// take has the pool put the snapshot in its place.
func (t *target) take(c *dm.Control) error {
	if err := c.Message(t.origin.pool.number, 0, fmt.Sprintf("create_snap %d %d", t.place.thin, t.origin.thin)); err != nil {
		return t.failed("take the snapshot", err)
	}
	return nil
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

// empty takes the snapshot out of its place, whoever still reads it. What it does
// not do, Release does, and says so.
func (t *target) empty() {
	ours := t.devices != nil && t.devices.unchanged(t.set.control) == nil
	if err := t.hide(); err != nil {
		return
	}
	if ours { // until now, so the number is still that of the snapshot
		_ = t.set.control.Message(t.origin.pool.number, 0, fmt.Sprintf("delete %d", t.place.thin))
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = removeVolume(ctx, t.set.console, t.place.lv, t.place.proof)
}

// forget has the pool forget a snapshot whose logical volume somebody has removed,
// perhaps before it was taken: unless the number is another volume's by now.
func (t *target) forget(ctx context.Context) {
	lvs, err := t.set.console.list(ctx, "-S", fmt.Sprintf(`vg_uuid="%s" && pool_lv="%s" && thin_id=%d`, t.place.lv.GroupUUID, t.place.lv.Pool, t.place.thin))
	if err == nil && len(lvs) == 0 {
		_ = t.set.control.Message(t.origin.pool.number, 0, fmt.Sprintf("delete %d", t.place.thin))
	}
}
