package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/device"
	"stillpoint/internal/sys/blockdev"
	"stillpoint/internal/volume"
)

// snap is what a target becomes by Commit.
type snap struct {
	taken    time.Time
	held     time.Duration
	tried    bool // to show it
	devices  *devices
	shown    *device.Shown
	err      error // once not nil, for ever
	released bool
}

// ID is the set's and the volume's.
func (t *target) ID() string { return t.set.id + "/" + string(t.volume.ID) }

// Volume is the target's.
func (t *target) Volume() volume.ID { return t.volume.ID }

// Parts is the one that there is.
func (t *target) Parts() []snapshot.Part {
	t.ready()
	defer t.mu.Unlock()
	return []snapshot.Part{{Path: ".", Volume: t.volume.ID, Taken: t.taken, Frozen: true, Held: t.held}}
}

// Gaps is empty: whatever else is mounted in the volume is another one.
func (t *target) Gaps() []snapshot.Gap { return nil }

// Root is where it is shown.
func (t *target) Root() string {
	shown := t.ready()
	defer t.mu.Unlock()
	if !shown {
		return nowhere
	}
	return t.shown.Root()
}

// nowhere is a path that nothing can be read from.
const nowhere = "/proc/self/fd/none"

// lose gives the snapshot up.
func (t *target) lose(err error) {
	if t.err == nil {
		if problem.CodeOf(err) == problem.Uncatalogued {
			err = problem.New(problem.SnapshotLost, t.ID(), err)
		}
		t.err = err
	}
}

// ready shows the snapshot when it is first needed, tells whether it is shown,
// and leaves t.mu locked.
func (t *target) ready() bool {
	if !t.isReleased() {
		t.set.activation.Do(t.set.activate)
	}
	t.mu.Lock()
	if !t.tried && !t.released && t.err == nil {
		t.tried = true
		if err := t.show(); err != nil {
			t.lose(fmt.Errorf("show it: %w", err))
		}
	}
	return t.err == nil && t.shown != nil
}

func (t *target) show() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if t.devices == nil {
		return errors.New("it is not active")
	}
	t.shown, err = device.Show(ctx, device.Source{
		Device: device.Device{Node: t.devices.upper.Node(), Number: t.devices.upper.Number.String()},
		FSType: t.volume.FSType, Frozen: true,
	})
	fault.Point("lvm:mounted")
	return err
}

// activate makes the devices of all snapshots of the set, when the first is to be
// shown. LVM must have their volumes as they were made: a number in a pool may be
// another volume's by now. From then on it finds them in use.
func (s *set) activate() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	lvs, err := s.console.list(ctx, "-S", "lv_tags=\""+tagSet+s.id+"\"")
	for _, t := range s.targets {
		t.mu.Lock()
		why := err
		if why == nil {
			why = t.activate(ctx, lvs)
		}
		if why != nil {
			t.lose(fmt.Errorf("show it: %w", why))
		}
		t.mu.Unlock()
	}
	fault.Point("lvm:activated")
}

func (t *target) activate(ctx context.Context, lvs []logical) (err error) {
	if t.place == nil || t.err != nil { // released, or lost, before anybody asked
		return nil
	}
	i := slices.IndexFunc(lvs, func(lv logical) bool { return lv.UUID == t.place.lv.UUID })
	if i < 0 || lvs[i].Thin != strconv.FormatUint(t.place.thin, 10) {
		t.forget(ctx)
		return errors.New("somebody has removed its logical volume")
	}
	t.devices, err = makeDevices(t.set.control, t.place.lv, t.origin, t.place.thin)
	return err
}

// Err asks device-mapper whether the snapshot is what it was.
func (t *target) Err() error {
	shown := t.ready()
	defer t.mu.Unlock()
	switch {
	case t.released:
		return problem.Newf(problem.SnapshotLost, t.ID(), "it was released")
	case shown:
		if err := t.look(); err != nil {
			t.lose(err)
			if problem.Is(err, problem.PoolFull) {
				t.empty()
			}
		}
	}
	return t.err
}

func (t *target) look() error {
	if err := t.devices.unchanged(t.set.control); err != nil {
		return err
	}
	p, err := poolState(t.set.control, t.origin.pool.number)
	if err != nil {
		return err
	}
	return p.roomy(t.poolName(), 1)
}

func (t *target) poolName() string { return t.origin.lv.Group + "/" + t.origin.lv.Pool }

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
	if err := t.hide(); err != nil {
		return err
	}
	if t.place == nil {
		return nil
	}
	fault.Point("lvm:releasing")
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

// removeVolume removes a logical volume of ours, if it is there, by what no other
// one has.
func removeVolume(ctx context.Context, c *console, lv logical, proof string) error {
	which := fmt.Sprintf(`lv_tags="%s%s" && lv_name="%s" && vg_uuid="%s"`, tagProof, proof, lv.Name, lv.GroupUUID)
	_, err := c.change(ctx, "lvremove", slices.Concat([]string{"--select", which}, quiet, []string{lv.Group})...)
	if err == nil {
		return nil
	}
	left, lerr := c.list(ctx, "-S", which)
	if lerr == nil && len(left) == 0 {
		return nil // the volume group, too, is gone, or has another name
	}
	return coded(lv.full(), errors.Join(err, lerr))
}

func onDevice(f *os.File, number string) (bool, error) { return blockdev.Carries(number, f) }

var _ snapshot.Readier = (*set)(nil)
