package lvm

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
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
	if t.emptied || t.leaving || time.Since(t.asked) < t.set.console.again {
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
			return errors.New("LVM has added volumes to its pool, or removed some: the number of the snapshot may be another one's")
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
// not help has it remove the logical volume.
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
	var lvs []logical
	var err error
	t.unlocked(func() { lvs, err = t.set.console.list(ctx, "--readonly", "-S", mine(place.lv, place.proof)) })
	if t.emptied || t.place == nil || t.leaving {
		return
	}
	if err == nil && t.devices != nil && place.in(lvs) {
		t.confirmed = true
		t.emptied = t.forgotten() == nil
	}
	if herr := t.hide(); herr != nil || t.emptied { // LVM removes nothing that is in use
		return
	}
	t.unlocked(func() {
		if err == nil && len(lvs) == 0 {
			err = t.forget(ctx, place)
		} else {
			err = removeVolume(ctx, t.set.console, place.lv, place.proof)
		}
	})
	t.emptied = t.emptied || err == nil
}

// unlocked does what may take long. It is called with mu held, which is free meanwhile.
func (t *target) unlocked(do func()) {
	t.mu.Unlock()
	defer t.mu.Lock()
	do()
}

// forget has the pool forget a snapshot whose logical volume somebody has removed,
// perhaps before it was taken: unless the number is another volume's by now, in
// whatever pool of the group, since pools can be renamed. Left there, the next volume
// that LVM makes would get its number, and the pool a transaction that fails.
func (t *target) forget(ctx context.Context, p *place) error {
	lvs, err := t.set.console.list(ctx, "-S", fmt.Sprintf(`vg_uuid="%s" && thin_id=%d`, p.lv.GroupUUID, p.thin))
	if err != nil || len(lvs) > 0 {
		return err
	}
	if err := t.origin.pool.tell(t.set.control, "delete %d", p.thin); err != nil && !errors.Is(err, syscall.ENODATA) {
		return err
	}
	return nil
}
