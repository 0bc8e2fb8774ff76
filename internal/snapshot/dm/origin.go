package dm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
	switch {
	case err == nil && isOurs(table, real.Number):
		return real, nil
	case err == nil:
		// Of a set whose origin was changed by somebody else, or that was killed.
		if err := removeDevice(o.control, real); err != nil {
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
	d, err := o.at()
	if err != nil {
		return err
	}
	was, err := o.control.Table(real.Number)
	if err != nil {
		return err
	}
	if is, err := o.control.Table(o.number); err != nil || !isOurs(is, real.Number) && !slices.Equal(is, was) {
		return errors.Join(err, problem.Newf(problem.Busy, d.Name, "another program has changed the device just now"))
	}
	return o.exchange(ours(dm.Sectors(was), real.Number), d.ReadOnly)
}

// restore gives the origin its own table back, to the letter. Where somebody else
// gave it another one meanwhile, that stays.
func (o origin) restore() error {
	real, err := o.real()
	if err != nil {
		return ignore(err, dm.ErrNone)
	}
	d, err := o.control.Status(o.number)
	switch {
	case errors.Is(err, dm.ErrNone): // it was removed
	case err != nil:
		return err
	default:
		is, err := o.control.Table(o.number)
		if err != nil {
			return err
		}
		if isOurs(is, real.Number) {
			if d.Suspended {
				return problem.Newf(problem.DeviceSuspended, d.Name, "the device is suspended by another program, so it does not get its own table back now")
			}
			was, err := o.control.Table(real.Number)
			if err != nil {
				return err
			}
			if err := o.exchange(was, d.ReadOnly); err != nil {
				return err
			}
		}
	}
	return removeDevice(o.control, real)
}

// exchange gives the origin a table, and tries again where a disk has much to do.
func (o origin) exchange(table []dm.Target, readOnly bool) (err error) {
	for range exchangeTries {
		if err = o.exchangeOnce(table, readOnly); !errors.Is(err, dm.ErrSlow) {
			return err
		}
		time.Sleep(exchangePatience / 2) // those go on who have waited
	}
	return err
}

// exchangeOnce does it in one call. Who reads or writes meanwhile waits for that,
// and for what is under way.
func (o origin) exchangeOnce(table []dm.Target, readOnly bool) error {
	if err := o.control.Load(o.number, table, readOnly); err != nil {
		return err
	}
	err := resume(o.control, o.number, 0)
	if err != nil {
		// The kernel refused the table when the device was suspended already.
		return errors.Join(err, o.control.Clear(o.number), resume(o.control, o.number, 0))
	}
	return nil
}

// exchangePatience is how long an exchange may wait for what is under way, and
// everybody else for it: a disk that does not answer for so long would keep all
// waiting for no good.
const exchangePatience = 700 * time.Millisecond

const exchangeTries = 8

// resume is Resume with an end.
func resume(c *dm.Control, n dm.Number, udev dm.UdevFlags) error {
	return dm.Within(exchangePatience, func() error { return c.Resume(n, udev) })
}

// removePatience is how long others may have a device open that they only look at:
// scanners open whatever they find.
const removePatience = 5 * time.Second

// removeDevice removes a device of ours that nobody has open for longer.
func removeDevice(c *dm.Control, d dm.Device) error {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := c.Remove(d.Number, dm.Alone)
		if err == nil || errors.Is(err, dm.ErrNone) {
			return nil
		}
		if !errors.Is(err, dm.ErrInUse) || time.Since(began) > removePatience {
			return err
		}
	}
}

// makeDevice makes a device of ours with a table.
func makeDevice(c *dm.Control, t tag, table []dm.Target, readOnly bool) (dm.Device, error) {
	d, err := loadDevice(c, t, table, readOnly)
	if err != nil {
		return d, err
	}
	if err := resume(c, d.Number, dm.Alone); err != nil {
		return d, errors.Join(err, removeDevice(c, d))
	}
	return d, nil
}

// loadDevice makes a device whose table is not live yet.
func loadDevice(c *dm.Control, t tag, table []dm.Target, readOnly bool) (dm.Device, error) {
	d, err := c.Create(t.name(), t.uuid())
	if errors.Is(err, dm.ErrInUse) {
		return d, problem.New(problem.Busy, t.name(), fmt.Errorf("there is a device of that name: %w", err))
	}
	if err != nil {
		return d, err
	}
	if err := c.Load(d.Number, table, readOnly); err != nil {
		return d, errors.Join(err, removeDevice(c, d))
	}
	return d, nil
}

// ignore is err, unless it is that one.
func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// locked does something to origins under all locks that it needs.
func locked(ctx context.Context, c *dm.Control, numbers []dm.Number, do func() error) error {
	l, err := lockOrigins(ctx)
	if err != nil {
		return err
	}
	defer l.release()
	held := map[string]bool{}
	for _, n := range numbers {
		d, err := c.Status(n)
		if err != nil {
			continue // whoever needs it finds out
		}
		if group := volumeGroup(d.Name); !held[group] {
			g, err := lockVolumeGroup(ctx, d)
			if err != nil {
				return err
			}
			defer g.release()
			held[group] = true
		}
	}
	return do()
}
