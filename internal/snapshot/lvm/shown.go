package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
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
	released atomic.Bool
	leaving  bool // it is being released

	confirmed bool // LVM's volume is the one that it was, since it is in use by the devices
	covered   time.Time
	yielding  bool // the pool is to have back what the snapshot keeps
	emptied   bool // and has it
	asking    bool // LVM, to do that
	asked     time.Time
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
	if !t.released.Load() {
		t.set.activation.Do(t.set.activate)
	}
	t.showing.Lock()
	defer t.showing.Unlock()
	t.mu.Lock()
	if !t.tried && !t.released.Load() && !t.leaving && t.err == nil {
		t.tried = true
		t.show()
	}
	return t.err == nil && t.shown != nil
}

// show does so. A disk may have much to do: meanwhile the pool is watched, and the
// snapshot given up, or released.
func (t *target) show() {
	d := t.devices
	var shown *device.Shown
	var err error
	t.unlocked(func() { shown, err = showDevices(t.volume.FSType, d) })
	switch {
	case err != nil:
		t.lose(fmt.Errorf("show it: %w", err))
	case t.released.Load() || t.leaving || t.devices != d:
		_ = shown.Close()
	default:
		t.shown = shown
	}
}

func showDevices(fsType string, d *devices) (*device.Shown, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if d == nil {
		return nil, errors.New("it is not active")
	}
	defer fault.Point("lvm:mounted")
	return device.Show(ctx, device.Source{
		Device: device.Device{Node: d.upper.Node(), Number: d.upper.Number.String()},
		FSType: fsType, Frozen: true,
	})
}

// activate makes the devices of all snapshots of the set, when the first is to be
// shown. From then on LVM finds their volumes in use. It must have them as they were
// made, which it is asked after that: a number in a pool may be another volume's.
func (s *set) activate() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	made := make([]error, len(s.targets))
	for i, t := range s.targets {
		t.mu.Lock()
		if t.place != nil && t.err == nil && !t.leaving { // not released, nor lost, before anybody asked
			t.devices, made[i] = makeDevices(s.control, t.place.lv, t.origin, t.place.thin)
		}
		t.mu.Unlock()
	}
	lvs, err := s.console.list(ctx, "-S", "lv_tags=\""+tagSet+s.id+"\"")
	for i, t := range s.targets {
		t.mu.Lock()
		why := errors.Join(err, made[i])
		if err == nil {
			why = t.confirm(ctx, lvs, made[i])
		}
		if why != nil {
			t.lose(fmt.Errorf("show it: %w", why))
		}
		t.mu.Unlock()
	}
	fault.Point("lvm:activated")
}

// confirm makes sure that the devices show the snapshot. It is called with mu held.
func (t *target) confirm(ctx context.Context, lvs []logical, made error) error {
	if t.place == nil || t.err != nil || t.leaving {
		return nil
	}
	place := t.place
	if place.in(lvs) {
		t.confirmed = t.devices != nil
		return made
	}
	t.yielding = true // what fails here is tried again
	if err := t.hide(); err != nil {
		return err
	}
	if !t.asking && !t.emptied {
		t.asking = true // so that nobody else does the same meanwhile
		var err error
		t.unlocked(func() { err = t.forget(ctx, place) })
		t.asking, t.emptied = false, t.emptied || err == nil
	}
	return errors.New("somebody has removed its logical volume")
}

// Err asks device-mapper whether the snapshot is what it was.
func (t *target) Err() error {
	shown := t.ready()
	defer t.mu.Unlock()
	switch {
	case t.released.Load(), t.leaving && t.err == nil:
		return problem.Newf(problem.SnapshotLost, t.ID(), "it was released")
	case shown && !t.leaving:
		if err := t.look(); problem.Is(err, problem.PoolFull) {
			t.giveUp(err)
		} else if err != nil {
			t.lose(err)
		}
	}
	return t.err
}

func (t *target) look() error {
	if err := t.devices.unchanged(t.set.control); err != nil {
		return err
	}
	p, err := t.origin.pool.now(t.set.control)
	if err != nil {
		return err
	}
	return t.tide.roomy(time.Now(), p, t.poolName())
}

func (t *target) poolName() string { return t.origin.lv.Group + "/" + t.origin.lv.Pool }

func onDevice(f *os.File, number string) (bool, error) { return blockdev.Carries(number, f) }

var _ snapshot.Readier = (*set)(nil)
