package lvm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	stack "stillpoint/internal/snapshot/dm"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// under is the provider that lays its devices below classic volumes.
func (p *Provider) under() *stack.Provider {
	p.once.Do(func() { p.laid = stack.New(p.table) })
	return p.laid
}

// errThick is why a classic volume is not taken by itself.
var errThick = errors.New("it is taken only where this provider is named, by free extents of its volume group")

// notThin says why a volume is not a thin one: with errThick where it is a classic one of LVM.
func notThin(d dm.Device, table []dm.Target, v volume.Volume) error {
	if _, ok := lvUUID(d.UUID); !ok || len(table) == 0 {
		return problem.Newf(problem.NoProvider, string(v.ID), "is on %s, which is not a logical volume of LVM", d.Name)
	}
	return problem.Newf(problem.NoProvider, string(v.ID), "is on %s, %s: %w", d.Name, kindOf(table[0].Type), errThick)
}

// Named is Check where people have named the provider: it takes classic volumes, too.
func (p *Provider) Named(ctx context.Context, v volume.Volume) (how string, err error) {
	if err = p.Check(ctx, v); !errors.Is(err, errThick) {
		return "", err
	}
	c, err := open(v)
	if err != nil {
		return "", err
	}
	defer c.Close()
	t := []thick{{volume: v}}
	if _, err := p.survey(ctx, c, t); err != nil {
		return "", err
	}
	s := t[0].space
	return fmt.Sprintf("originals of what changes go to a logical volume of %d MiB, of the %d MiB that its volume group %s has free%s",
		t[0].extents*s.extent>>20, s.free*s.extent>>20, s.group, s.keeping()), nil
}

// A thick is a classic volume that is to be taken.
type thick struct {
	volume  volume.Volume
	lv      logical
	space   space // of its group
	extents int64 // for originals
}

// survey looks whether classic volumes can be taken together, and how much of the free
// extents of its group each gets.
func (p *Provider) survey(ctx context.Context, c *dm.Control, ts []thick) (lvs []logical, err error) {
	for _, t := range ts { // before LVM is asked, which might read what is suspended
		if err := p.under().CheckRoomed(ctx, t.volume); err != nil {
			return nil, err
		}
		for _, d := range t.volume.Stack[1:] {
			if err := (origin{}).bears(c, t.volume, d); err != nil {
				return nil, err
			}
		}
	}
	lvs, err = p.console.list(ctx)
	if err != nil {
		return nil, coded(string(ts[0].volume.ID), fmt.Errorf("ask LVM what there is: %w", err))
	}
	for i := range ts {
		if err := ts[i].known(c, lvs); err != nil {
			return nil, err
		}
	}
	return lvs, p.divide(ctx, c, lvs, ts)
}

// known completes it by what LVM says of it.
func (t *thick) known(c *dm.Control, lvs []logical) error {
	id := string(t.volume.ID)
	n, err := dm.ParseNumber(t.volume.Device)
	if err != nil {
		return problem.New(problem.NoProvider, id, err)
	}
	d, err := c.Status(n)
	if err != nil {
		return coded(id, err)
	}
	uuid, _ := lvUUID(d.UUID)
	i := slices.IndexFunc(lvs, func(lv logical) bool { return lv.UUID == uuid })
	if i < 0 {
		return problem.Newf(problem.NoProvider, id, "is on %s, which LVM does not know", d.Name)
	}
	t.lv = lvs[i]
	if _, ours := t.lv.read(); ours {
		return problem.Newf(problem.NoProvider, id, "is itself of a snapshot of ours")
	}
	if err := t.lv.groupTakes(); err != nil {
		return problem.New(problem.NoProvider, id, err)
	}
	return nil
}

// divide divides the free extents of each group among its volumes.
func (p *Provider) divide(ctx context.Context, c *dm.Control, lvs []logical, ts []thick) error {
	var all []volume.Volume
	of := map[string][]*thick{}
	for i := range ts {
		all = append(all, ts[i].volume)
		of[ts[i].lv.GroupUUID] = append(of[ts[i].lv.GroupUUID], &ts[i])
	}
	for _, group := range of {
		space, err := p.console.space(ctx, c, group[0].lv, all)
		if err != nil {
			return err
		}
		growers, err := growersOf(lvs, group[0].lv.GroupUUID)
		if err != nil {
			return err
		}
		if err := space.keepFor(c, growers); err != nil {
			return err
		}
		if err := space.divide(p.maximum, group); err != nil {
			return err
		}
	}
	return nil
}

// prepareThick makes a set of classic volumes ready.
func (p *Provider) prepareThick(ctx context.Context, c *dm.Control, id string, ts []snapshot.Target) (stack.Roomed, error) {
	var thicks []thick
	for _, t := range ts {
		thicks = append(thicks, thick{volume: t.Volume})
	}
	lvs, err := p.survey(ctx, c, thicks)
	if err != nil {
		return nil, err
	}
	if err := unusedRooms(lvs, id); err != nil {
		return nil, err
	}
	by, err := self()
	if err != nil {
		return nil, problem.New(problem.SnapshotFailed, id, err)
	}
	var rooms []stack.Room
	for i, t := range thicks {
		rooms = append(rooms, newRoom(p.console, c, id, i, t, by))
	}
	return p.under().PrepareRoomed(ctx, id, ts, rooms, Name)
}
