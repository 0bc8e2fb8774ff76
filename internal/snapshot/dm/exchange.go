package dm

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
)

// A wish says which table a device is to get, as all is now, and that nobody else is about
// to give it one. No table is none to give.
type wish func() (table []dm.Target, readOnly bool, err error)

// exchange gives a device a table, and tries again where a disk has much to do. Another
// program may have changed the device by then, so it asks before each try what to give.
func exchange(c *dm.Control, n dm.Number, wish wish, udev dm.UdevFlags) error {
	for try := 1; ; try++ {
		table, readOnly, err := wish()
		if err != nil || table == nil {
			return err
		}
		again, err := exchangeOnce(c, n, table, readOnly, udev)
		if !again || try == exchangeTries {
			return err
		}
		fault.Point(fault.DMSlow)
		time.Sleep(exchangePatience / 2) // those go on who have waited
	}
}

// exchangeOnce does it in one call, and says whether it makes sense to try again. Who reads
// or writes meanwhile waits for that, and for what is under way.
func exchangeOnce(c *dm.Control, n dm.Number, table []dm.Target, readOnly bool, udev dm.UdevFlags) (again bool, err error) {
	// This program may lie on the device, so what it does below while that is suspended is
	// brought into memory here.
	_, err = c.Status(n)
	if err := errors.Join(err, unload(c, n, table)); err != nil {
		return false, err
	}
	if err := c.Load(n, table, readOnly); err != nil {
		return false, err
	}
	fault.Point("dm:table-loaded")
	err = resume(c, n, udev)
	if err == nil {
		return false, nil
	}
	// Nothing is suspended then, unless by somebody else, who must find it so. ErrNone is said
	// of a device that is there when somebody has filled its slot while we waited (do_resume in
	// drivers/md/dm-ioctl.c); when it has gone, the next try says so.
	if errors.Is(err, syscall.EINTR) || errors.Is(err, dm.ErrNone) {
		return true, errors.Join(err, ignore(unload(c, n, table), dm.ErrNone))
	}
	refused, uerr := putRight(c, n, table, udev)
	// Kernels before August 2024 say EINVAL when a signal came (7a636b4f03af, "dm resume:
	// don't return EINVAL when signalled").
	passing := errors.Is(err, dm.ErrSlow) || errors.Is(err, syscall.EINVAL)
	return passing && !refused && uerr == nil, errors.Join(err, uerr)
}

// putRight lets a device go on that we have suspended, since the kernel refused the table only
// then, and leaves none of ours in the slot.
func putRight(c *dm.Control, n dm.Number, table []dm.Target, udev dm.UdevFlags) (refused bool, err error) {
	d, err := c.Status(n)
	if err != nil {
		return false, err
	}
	if d.Suspended {
		return true, resume(c, n, udev)
	}
	return false, unload(c, n, table)
}

// unload empties the slot of a device where that has our table. What somebody else has
// loaded stays: whoever resumes then must not believe that it is live.
func unload(c *dm.Control, n dm.Number, table []dm.Target) error {
	waiting, err := c.Waiting(n)
	if err != nil || !slices.Equal(waiting, table) {
		return err
	}
	return c.Clear(n)
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

// removeDevice removes a device of ours that nobody has open for longer. It goes by the
// UUID, as others who take away the same do meanwhile; those of tests may have none. The one
// below an origin has the same UUID each time, and is made and removed under all locks; of
// the others, see endNow.
func removeDevice(c *dm.Control, d dm.Device) error {
	remove := c.Named(d.UUID).Remove
	if d.UUID == "" {
		remove = func(udev dm.UdevFlags) error { return c.Remove(d.Number, udev) }
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := remove(dm.Alone)
		if err == nil || errors.Is(err, dm.ErrNone) {
			return nil
		}
		if !errors.Is(err, dm.ErrInUse) || time.Since(began) > removePatience {
			return err
		}
	}
}

// makeDevice makes a device of ours with a table. After an error there is one only where
// it could not be removed again.
func makeDevice(c *dm.Control, t tag, table []dm.Target, readOnly bool) (dm.Device, error) {
	d, err := loadDevice(c, t, table, readOnly)
	if err != nil {
		return d, err
	}
	if err := resume(c, d.Number, dm.Alone); err != nil {
		return unmade(c, d, err)
	}
	return d, nil
}

// unmade removes a device that could not be made, if that can be done.
func unmade(c *dm.Control, d dm.Device, why error) (dm.Device, error) {
	if err := removeDevice(c, d); err != nil {
		return d, errors.Join(why, err)
	}
	return dm.Device{}, why
}

// loadDevice makes a device whose table is not live yet.
func loadDevice(c *dm.Control, t tag, table []dm.Target, readOnly bool) (dm.Device, error) {
	d, err := c.Create(t.name(), t.uuid())
	if errors.Is(err, dm.ErrInUse) {
		return dm.Device{}, problem.New(problem.Busy, t.name(), fmt.Errorf("there is a device of that name: %w", err))
	}
	if err != nil {
		return d, err
	}
	if err := c.Load(d.Number, table, readOnly); err != nil {
		return unmade(c, d, err)
	}
	return d, nil
}
