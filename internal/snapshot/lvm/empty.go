package lvm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"stillpoint/internal/sys/dm"
)

// giveUp gives the snapshot up, and its pool what it keeps, whoever still reads it. It is
// called with mu held.
func (t *target) giveUp(why error) {
	t.lose(why)
	t.yielding = true
	t.empty()
}

// empty takes the snapshot out of its place: at once, or LVM is asked to, and then it is
// tried again, until it is so. It is called with mu held.
func (t *target) empty() {
	if t.emptied || t.place == nil || t.asking {
		return
	}
	if t.emptied = t.forgotten() == nil; t.emptied || t.leaving {
		_ = t.hide() // Release says why it could not be
	}
	if t.emptied || time.Since(t.asked) < t.set.console.again {
		return
	}
	t.asking = true
	t.set.working.Go(t.ask)
}

// forgotten has the pool forget the snapshot, without LVM, for which another program may
// wait that has the volume group for as long as it likes. From when our devices are there
// to then the number in the pool is not given to another volume, so it is enough to know
// whose it was at one time between.
func (t *target) forgotten() (err error) {
	c, pool := t.set.control, t.origin.pool
	if t.devices == nil {
		t.devices, err = makeDevices(c, t.place.lv, t.origin, t.place.thin)
		if errors.Is(err, syscall.ENODATA) {
			return nil // the pool does not have it
		}
		if err != nil {
			return err
		}
	}
	if !t.confirmed {
		is, err := pool.now(c)
		if err != nil {
			return err
		}
		if is.transaction != t.place.transaction {
			// Then it must not be in use by us, whose owner may want to remove it.
			return errors.Join(errors.New("LVM has added volumes to its pool, or removed some: the number of the snapshot may be another one's"), t.hide())
		}
		t.confirmed = true
	}
	if err := t.devices.cover(c); err != nil { // or the pool has it in use
		return err
	}
	if err := t.devices.blind(c); err != nil {
		return err
	}
	if err := pool.tell(c, "delete %d", t.place.thin); err != nil && !errors.Is(err, syscall.ENODATA) {
		return err
	}
	return nil
}

// ask has LVM say whose the place is, for which it waits for nobody, and where that does
// not help has it remove the logical volume, as Release does by itself.
func (t *target) ask() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() { t.asking, t.asked = false, time.Now() }()
	place := t.place
	if place == nil {
		return // it was released just now
	}
	if t.prove(ctx, place) || t.leaving || t.place == nil {
		return
	}
	var err error
	t.unlocked(func() { err = removeVolume(ctx, t.set.console, place.lv, place.proof) })
	t.emptied = t.emptied || err == nil
}

// prove asks LVM whose the number is, while our devices have it in use, so that it stays
// so, and has the pool forget it where that is ours. It tells whether nothing more is to
// be done, or can be now. Our devices are gone then.
func (t *target) prove(ctx context.Context, place *place) (done bool) {
	defer func() {
		if t.hide() != nil { // LVM removes nothing that is in use
			done = true
		}
	}()
	if t.devices == nil {
		var err error
		t.devices, err = makeDevices(t.set.control, place.lv, t.origin, place.thin)
		if t.emptied = t.emptied || errors.Is(err, syscall.ENODATA); err != nil {
			return t.emptied // or somebody has it in use
		}
	}
	var lvs []logical
	var err error
	t.unlocked(func() { lvs, err = t.set.console.glance(ctx, "-S", mine(place.lv, place.proof)) })
	switch {
	case t.emptied || t.place == nil, err != nil:
		return true
	case place.in(lvs):
		t.confirmed = t.devices != nil
		t.emptied = t.confirmed && t.forgotten() == nil
	case len(lvs) == 0:
		if t.hide() == nil {
			t.unlocked(func() { err = t.forget(ctx, place) })
			t.emptied = t.emptied || err == nil
		}
		return true
	}
	return t.emptied
}

// unlocked does what may take long. It is called with mu held, which is free meanwhile.
func (t *target) unlocked(do func()) {
	t.mu.Unlock()
	defer t.mu.Lock()
	do()
}

// forget has the pool forget a snapshot whose logical volume somebody has removed,
// perhaps before it was taken: unless the number is another volume's of the pool by now.
// Left there, the next volume that LVM makes would get its number, and the pool a
// transaction that fails. A pool that is not active any more has it no more: LVM has it
// forget what it removes.
func (t *target) forget(ctx context.Context, p *place) error {
	before, err := t.origin.pool.found(t.set.control)
	if errors.Is(err, dm.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	lvs, err := t.set.console.glance(ctx, "-S", fmt.Sprintf(`vg_uuid="%s" && thin_id=%d`, p.lv.GroupUUID, p.thin))
	if err != nil || slices.ContainsFunc(lvs, before.holds) {
		return err
	}
	now, err := before.now(t.set.control)
	if err != nil {
		return err
	}
	if now.transaction != before.transaction {
		return errors.New("LVM has changed its pool just now, so that the number of the snapshot may be another one's")
	}
	if err := now.tell(t.set.control, "delete %d", p.thin); err != nil && !errors.Is(err, syscall.ENODATA) {
		return err
	}
	return nil
}
