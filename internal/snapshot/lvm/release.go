package lvm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
)

// Release deletes the snapshot.
func (t *target) Release(ctx context.Context) error {
	unlock, err := t.set.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if t.released.Load() {
		return nil
	}
	if err := t.remove(ctx); err != nil {
		t.set.later(&t.trying, err, t.Release)
		return problem.New(problem.ReleaseFailed, t.ID(), err)
	}
	t.released.Store(true)
	for _, o := range t.set.targets {
		if !o.released.Load() {
			return nil
		}
	}
	t.set.close()
	return nil
}

// remove ends the showing and removes the logical volume, if it is there. While LVM has
// other things to do, the pool is watched.
func (t *target) remove(ctx context.Context) error {
	t.mu.Lock()
	t.leaving = true
	place, unproven := t.place, t.told && !t.confirmed && !t.emptied
	err := t.hide()
	t.mu.Unlock()
	if err != nil || place == nil {
		return err
	}
	fault.Point("lvm:releasing")
	if unproven {
		lvs, err := t.set.console.list(ctx, "-S", mine(place.lv, place.proof))
		if err == nil && len(lvs) == 0 {
			err = t.forget(ctx, place)
		}
		if err != nil {
			return err
		}
	}
	if err := removeVolume(ctx, t.set.console, place.lv, place.proof); err != nil {
		return err
	}
	fault.Point("lvm:removed")
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.hide(); err != nil { // what was made meanwhile, to give the pool its room back
		return err
	}
	t.place = nil
	return nil
}

// hide ends the showing. It is called with mu held.
func (t *target) hide() error {
	if t.shown != nil {
		if err := t.shown.Close(); err != nil {
			return err
		}
		t.shown = nil
	}
	if t.devices != nil {
		if err := t.devices.remove(t.set.control); err != nil {
			return err
		}
		t.devices, t.confirmed = nil, false
	}
	return nil
}

// mine selects a logical volume of ours.
func mine(lv logical, proof string) string {
	return fmt.Sprintf(`lv_tags="%s%s" && lv_name="%s" && vg_uuid="%s"`, tagProof, proof, lv.Name, lv.GroupUUID)
}

// removeVolume removes a logical volume of ours, if it is there, by what no other
// one has. Its group may have another name by now.
func removeVolume(ctx context.Context, c *console, lv logical, proof string) error {
	which := mine(lv, proof)
	err := removeOnly(ctx, c, which, lv)
	if err == nil || problem.Is(err, problem.LVMStuck) {
		return err
	}
	left, lerr := c.list(ctx, "-S", which)
	if lerr != nil || len(left) > 0 && left[0].Group == lv.Group {
		return coded(lv.full(), errors.Join(err, lerr))
	}
	if len(left) == 0 {
		return nil // somebody has removed it, or its group
	}
	return coded(left[0].full(), removeOnly(ctx, c, which, left[0]))
}

// removeOnly removes a logical volume if it is one of those selected.
func removeOnly(ctx context.Context, c *console, which string, lv logical) error {
	args := slices.Concat([]string{"--select", which}, quiet)
	if lv.Type == roomType {
		args = append(args, noted...)
	}
	_, err := c.change(ctx, "lvremove", append(args, lv.full())...)
	return err
}
