package dm

import (
	"errors"
	"fmt"
	"slices"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
)

// An origin is a device that a file system is mounted from. While there are
// snapshots of it, a device of ours has its table, and it asks that one.
type origin struct {
	control *dm.Control
	number  dm.Number
}

// at is the origin as it is now. A device that is suspended makes all wait who
// touch it: nothing more is done with it.
func (o origin) at() (dm.Device, error) {
	d, err := o.control.Status(o.number)
	if err != nil {
		return d, err
	}
	if d.Suspended {
		return d, problem.Newf(problem.DeviceSuspended, d.Name, "the device is suspended: everybody who reads or writes it waits until somebody resumes it")
	}
	return d, nil
}

func (o origin) tag() tag { return tag{kind: kindReal, origin: o.number} }

// real is our device below it; without one the error is dm.ErrNone.
func (o origin) real() (dm.Device, error) { return o.control.StatusOf(o.tag().uuid()) }

// isAsked tells whether the origin asks our device now.
func (o origin) isAsked() (bool, error) {
	real, err := o.real()
	if err != nil {
		return false, ignore(err, dm.ErrNone)
	}
	table, err := o.control.Table(o.number)
	return err == nil && isOurs(table, real.Number), err
}

// lay puts a device with the table of the origin below it, if there is none. The
// origin goes on as it is. The locks are held.
func (o origin) lay() (real dm.Device, err error) {
	d, err := o.at()
	if err != nil {
		return real, err
	}
	table, err := o.control.Table(o.number)
	if err != nil {
		return real, err
	}
	real, err = o.real()
	if err == nil {
		if err := o.settles(real); err != nil {
			return real, err
		}
	}
	switch {
	case err == nil && isOurs(table, real.Number):
		return real, nil
	case err == nil:
		// Of a set whose origin was changed by somebody else, or that was killed.
		if err := errors.Join(o.forget(d, real), removeDevice(o.control, real)); err != nil {
			return real, problem.New(problem.Busy, d.Name, fmt.Errorf("what an earlier snapshot has laid below it is still in use: %w", err))
		}
	case !errors.Is(err, dm.ErrNone):
		return real, err
	}
	if err := fits(table); err != nil {
		return real, problem.New(problem.NoProvider, d.Name, err)
	}
	return makeDevice(o.control, o.tag(), table, d.ReadOnly)
}

// ask lets the origin ask our device. It does so also where it did already: the
// kernel looks only then how large the pieces are that snapshots want to see.
func (o origin) ask(real dm.Device) error {
	return exchange(o.control, o.number, func() ([]dm.Target, bool, error) {
		d, err := o.at()
		if err != nil {
			return nil, false, err
		}
		was, err := o.control.Table(real.Number)
		if err != nil {
			return nil, false, err
		}
		if is, err := o.control.Table(o.number); err != nil || !isOurs(is, real.Number) && !slices.Equal(is, was) {
			return nil, false, errors.Join(err, problem.Newf(problem.Busy, d.Name, "another program has changed the device just now"))
		}
		if err := o.slotIsFree(d, real, was); err != nil {
			return nil, false, err
		}
		return ours(dm.Sectors(was), real.Number), d.ReadOnly, o.settles(real)
	}, 0)
}

// slotIsFree is nil where an exchange would take nobody's table from the slot: one
// who has loaded a table, and resumes then, must not believe that this is the table.
// What a process of ours has left there goes to our device, or is its table.
func (o origin) slotIsFree(d, real dm.Device, was []dm.Target) error {
	if !d.Loaded {
		return nil
	}
	waiting, err := o.control.Waiting(o.number)
	if err != nil {
		return err
	}
	if len(waiting) == 0 || isOurs(waiting, real.Number) || slices.Equal(waiting, was) {
		return nil
	}
	return problem.Newf(problem.Busy, d.Name, "another program has loaded a table for the device, which is not its table yet")
}

// forget empties the slot where a process of ours was killed before it could make
// its table the origin's: that holds our device, which could never be removed.
func (o origin) forget(d, real dm.Device) error {
	if !d.Loaded {
		return nil
	}
	waiting, err := o.control.Waiting(o.number)
	if err != nil || !isOurs(waiting, real.Number) {
		return err
	}
	return o.control.Clear(o.number)
}

// restore gives the origin its own table back, to the letter. Where somebody else
// gave it another one meanwhile, that stays.
func (o origin) restore() error {
	real, err := o.real()
	if err != nil {
		return ignore(err, dm.ErrNone)
	}
	if err := o.settles(real); err != nil {
		return err
	}
	err = exchange(o.control, o.number, func() ([]dm.Target, bool, error) { return o.own(real) }, 0)
	if err := ignore(err, dm.ErrNone); err != nil { // or it was removed
		return err
	}
	return removeDevice(o.control, real)
}

// own is the table that the origin is to get back, if it still goes to real.
func (o origin) own(real dm.Device) (table []dm.Target, readOnly bool, err error) {
	d, err := o.control.Status(o.number)
	if err != nil {
		return nil, false, err
	}
	is, err := o.control.Table(o.number)
	if err != nil {
		return nil, false, err
	}
	if !isOurs(is, real.Number) {
		return nil, false, o.forget(d, real)
	}
	if d.Suspended {
		return nil, false, problem.Newf(problem.DeviceSuspended, d.Name, "the device is suspended, so it does not get its own table back until somebody resumes it (dmsetup resume %s)", d.Name)
	}
	was, err := o.control.Table(real.Number)
	if err != nil {
		return nil, false, err
	}
	if err := o.slotIsFree(d, real, was); err != nil {
		return nil, false, err
	}
	return was, d.ReadOnly, o.settles(real)
}

// ignore is err, unless it is that one.
func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}
