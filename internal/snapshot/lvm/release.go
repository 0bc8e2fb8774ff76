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
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.released {
		return nil
	}
	if err := t.remove(ctx); err != nil {
		t.set.later(&t.trying, err, t.Release)
		return problem.New(problem.ReleaseFailed, t.ID(), err)
	}
	t.released = true
	for _, o := range t.set.targets {
		if o != t && !o.isReleased() {
			return nil
		}
	}
	t.set.close()
	return nil
}

func (t *target) isReleased() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.released
}

// remove ends the showing and removes the logical volume, if it is there.
func (t *target) remove(ctx context.Context) error {
	proven := t.devices != nil // since LVM had it in use
	if err := t.hide(); err != nil {
		return err
	}
	if t.place == nil {
		return nil
	}
	fault.Point("lvm:releasing")
	if t.told && !proven {
		if lvs, err := t.set.console.list(ctx, "-S", mine(t.place.lv, t.place.proof)); err == nil && len(lvs) == 0 {
			t.forget(ctx)
		}
	}
	if err := removeVolume(ctx, t.set.console, t.place.lv, t.place.proof); err != nil {
		return err
	}
	fault.Point("lvm:removed")
	t.place = nil
	return nil
}

// hide ends the showing.
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
		t.devices = nil
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
