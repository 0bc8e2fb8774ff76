package dm

import (
	"errors"
	"fmt"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
)

// exchange gives a device a table, and tries again where a disk has much to do. What the
// kernel refuses else is not tried again here: another program may have changed the
// device by then, which only the caller's looks at it find out.
func exchange(c *dm.Control, n dm.Number, table []dm.Target, readOnly bool, udev dm.UdevFlags) (err error) {
	for range exchangeTries {
		if err = exchangeOnce(c, n, table, readOnly, udev); !errors.Is(err, dm.ErrSlow) {
			return err
		}
		time.Sleep(exchangePatience / 2) // those go on who have waited
	}
	return err
}

// exchangeOnce does it in one call. Who reads or writes meanwhile waits for that,
// and for what is under way.
func exchangeOnce(c *dm.Control, n dm.Number, table []dm.Target, readOnly bool, udev dm.UdevFlags) error {
	// Nothing of others is in the slot. This program may lie on the device, so what it
	// does below while that is suspended is brought into memory here.
	if err := c.Clear(n); err != nil {
		return err
	}
	if err := c.Load(n, table, readOnly); err != nil {
		return err
	}
	fault.Point("dm:table-loaded")
	err := resume(c, n, udev)
	if err != nil {
		// The kernel refused the table when the device was suspended already.
		return errors.Join(err, c.Clear(n), resume(c, n, udev))
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
