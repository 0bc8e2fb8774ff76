package lvm

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"stillpoint/internal/sys/dm"
)

// devices are those that show a snapshot: one that stands for the logical volume,
// and the one that is mounted, which has the snapshot and has the other in use.
type devices struct {
	lower, upper dm.Device
	blank        []dm.Target // the table of the lower
	table        []dm.Target // of the upper
}

// upperSuffix ends the UUIDs of the upper ones. By libblkid's rule what follows
// LVM's own part of a UUID says that the device is private, and not to be scanned
// (sysfs_devno_is_dm_private in util-linux).
const upperSuffix = "-stillpoint"

// tail is how many sectors of the upper are not the snapshot's but the lower's, of
// 4096 bytes together, which every disk can be parted by.
const tail = 8

func makeDevices(c *dm.Control, lv logical, o origin, thin uint64) (*devices, error) {
	d, name := &devices{}, filepath.Base(lv.Path)
	var err error
	if d.lower, d.blank, err = makeLower(c, name, dmUUID(lv)); err != nil {
		return nil, err
	}
	d.table = []dm.Target{
		{Length: o.sectors, Type: "thin", Params: fmt.Sprintf("%s %d", o.pool.number, thin)},
		{Start: o.sectors, Length: tail, Type: "linear", Params: d.lower.Number.String() + " 0"},
	}
	if d.upper, err = makeDevice(c, name+"-shown", dmUUID(lv)+upperSuffix, d.table...); err != nil {
		return nil, errors.Join(err, removeSoon(c, d.lower))
	}
	return d, nil
}

// makeLower makes one of zeros. Who scans all devices finds nothing in it. Of one of
// errors, which is for kernels without dm-zero, the kernel's log tells each time.
func makeLower(c *dm.Control, name, uuid string) (d dm.Device, blank []dm.Target, err error) {
	blank = []dm.Target{{Length: tail, Type: "zero"}}
	d, err = makeDevice(c, name, uuid, blank...)
	if errors.Is(err, syscall.EINVAL) { // there is no such target
		blank[0].Type = "error"
		d, err = makeDevice(c, name, uuid, blank...)
	}
	return d, blank, err
}

// makeDevice makes a device, read-only, that udev leaves alone.
func makeDevice(c *dm.Control, name, uuid string, table ...dm.Target) (dm.Device, error) {
	d, err := loadDevice(c, name, uuid, table...)
	if err != nil {
		return d, err
	}
	return d, start(c, d)
}

// loadDevice makes one that has its table, and does not show it yet.
func loadDevice(c *dm.Control, name, uuid string, table ...dm.Target) (dm.Device, error) {
	d, err := c.Create(name, uuid)
	if err != nil {
		return d, err
	}
	if err := c.Load(d.Number, table, true); err != nil {
		return d, errors.Join(err, removeSoon(c, d))
	}
	return d, nil
}

// start has it show its table, or removes it. Somebody may have it open by now.
func start(c *dm.Control, d dm.Device) error {
	if err := c.Resume(d.Number, dm.Alone); err != nil {
		return errors.Join(err, removeSoon(c, d))
	}
	return nil
}

// unchanged makes sure that the device that is mounted is still what it was made.
func (d *devices) unchanged(c *dm.Control) error {
	table, err := c.Table(d.upper.Number)
	if err != nil || !slices.Equal(table, d.table) {
		return changed(err)
	}
	return nil
}

func changed(why error) error { return errors.Join(errors.New("somebody has changed its device"), why) }

// cover makes the lower one again what it was made, where LVM has given it the volume
// that it stands for, as vgrename does: udev then finds in it the file system of the
// origin, and may let its links lead there.
func (d *devices) cover(c *dm.Control) error {
	lower, err := is(c, d.lower)
	if err != nil {
		return err
	}
	table, err := c.Table(lower.Number)
	if err != nil || slices.Equal(table, d.blank) {
		return err
	}
	return exchange(c, lower, d.blank)
}

// blind lets go of the snapshot. LVM's volume stays in use.
func (d *devices) blind(c *dm.Control) error {
	blind := slices.Clone(d.table)
	blind[0] = dm.Target{Length: blind[0].Length, Type: "error"}
	table, err := c.Table(d.upper.Number)
	if err == nil && slices.Equal(table, blind) {
		return nil
	}
	if err != nil || !slices.Equal(table, d.table) {
		return changed(err)
	}
	return exchange(c, d.upper, blind)
}

// exchangePatience is how long is waited for what is under way on a device of ours. On
// disks that do not answer it does not end.
const exchangePatience = 10 * time.Second

// exchange gives a device of ours another table, or leaves it as it was.
func exchange(c *dm.Control, d dm.Device, table []dm.Target) error {
	if err := c.Load(d.Number, table, true); err != nil {
		return err
	}
	err := resume(c, d)
	if err != nil {
		// The kernel may have refused the table when the device was suspended already,
		// and whoever reads it would wait for ever.
		return errors.Join(err, c.Clear(d.Number), resume(c, d))
	}
	return nil
}

func resume(c *dm.Control, d dm.Device) error {
	return dm.Within(exchangePatience, func() error { return c.Resume(d.Number, dm.Alone) })
}

// cut cuts those off who still read, by an error.
func cut(c *dm.Control, upper dm.Device) error {
	table, err := c.Table(upper.Number)
	if err != nil {
		return err
	}
	if len(table) == 1 && table[0].Type == "error" {
		return nil
	}
	return exchange(c, upper, []dm.Target{{Length: dm.Sectors(table), Type: "error"}})
}

// is asks for a device of ours by its UUID. Its number may be another device's when it
// was removed, by us in an earlier try or by somebody else: the kernel gives the least
// that is free.
func is(c *dm.Control, d dm.Device) (dm.Device, error) { return c.StatusOf(d.UUID) }

// remove removes both. The upper one stays until nobody has it open any more.
func (d *devices) remove(c *dm.Control) error {
	for _, one := range []struct {
		device dm.Device
		remove func(*dm.Control, dm.Device) error
	}{{d.upper, removeUpper}, {d.lower, removeSoon}} {
		there, err := is(c, one.device)
		if err == nil {
			err = one.remove(c, there)
		}
		if err != nil && !errors.Is(err, dm.ErrNone) {
			return err
		}
	}
	return nil
}

// removeUpper does so, and lets go of what is below.
func removeUpper(c *dm.Control, upper dm.Device) error {
	err := c.Remove(upper.Number, dm.Alone)
	if err == nil || errors.Is(err, dm.ErrNone) {
		return nil
	}
	if !errors.Is(err, dm.ErrInUse) {
		return err
	}
	if err := cut(c, upper); err != nil {
		return err
	}
	if err := c.RemoveLater(upper.Number, dm.Alone); err != nil && !errors.Is(err, dm.ErrNone) {
		return err
	}
	return nil
}

// removeSoon removes one that is in use by nothing of ours. It waits a little for who
// looks at all devices, such as udev.
func removeSoon(c *dm.Control, d dm.Device) error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := c.Remove(d.Number, dm.Alone)
		if err == nil || errors.Is(err, dm.ErrNone) {
			return nil
		}
		if !errors.Is(err, dm.ErrInUse) || time.Now().After(end) {
			return err
		}
	}
}
