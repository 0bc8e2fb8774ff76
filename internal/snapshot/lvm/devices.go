package lvm

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"stillpoint/internal/sys/dm"
)

// devices are those that show a snapshot: that of the logical volume, as LVM
// would make it, and one on it.
type devices struct {
	lower, upper dm.Device
	table        dm.Target // of the lower
}

// upperPrefix begins the UUIDs of the upper ones; the logical volume's UUID
// follows.
const upperPrefix = "STILLPOINT-LVM-"

func makeDevices(c *dm.Control, lv logical, o origin, thin uint64) (*devices, error) {
	d := &devices{table: dm.Target{Length: o.sectors, Type: "thin", Params: fmt.Sprintf("%s %d", o.pool.number, thin)}}
	var err error
	if d.lower, err = makeDevice(c, filepath.Base(lv.Path), dmUUID(lv), d.table); err != nil {
		return nil, err
	}
	on := dm.Target{Length: o.sectors, Type: "linear", Params: d.lower.Number.String() + " 0"}
	if d.upper, err = makeDevice(c, lv.Name, upperPrefix+lv.UUID, on); err != nil {
		return nil, errors.Join(err, c.Remove(d.lower.Number, dm.Alone))
	}
	return d, nil
}

// makeDevice makes a device of one target, read-only, that udev leaves alone.
func makeDevice(c *dm.Control, name, uuid string, t dm.Target) (dm.Device, error) {
	d, err := c.Create(name, uuid)
	if err != nil {
		return d, err
	}
	if err = c.Load(d.Number, []dm.Target{t}, true); err == nil {
		err = c.Resume(d.Number, dm.Alone)
	}
	if err != nil {
		return d, errors.Join(err, c.Remove(d.Number, dm.Alone))
	}
	return d, nil
}

// unchanged makes sure that the devices are still what they were made.
func (d *devices) unchanged(c *dm.Control) error {
	table, err := c.Table(d.lower.Number)
	if err != nil || len(table) != 1 || table[0] != d.table {
		return errors.Join(errors.New("somebody has changed the device of its logical volume"), err)
	}
	table, err = c.Table(d.upper.Number)
	if err != nil || len(table) != 1 || table[0].Type != "linear" {
		return errors.Join(errors.New("somebody has changed its device"), err)
	}
	return nil
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
	if err := c.Load(upper.Number, []dm.Target{{Length: dm.Sectors(table), Type: "error"}}, true); err != nil {
		return err
	}
	return c.Resume(upper.Number, dm.Alone)
}

// remove removes both. The upper one stays until nobody has it open any more.
func (d *devices) remove(c *dm.Control) error {
	if err := removeUpper(c, d.upper); err != nil {
		return err
	}
	return removeLower(c, d.lower)
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

// removeLower waits a little for who looks at all devices, such as udev.
func removeLower(c *dm.Control, lower dm.Device) error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := c.Remove(lower.Number, dm.Alone)
		if err == nil || errors.Is(err, dm.ErrNone) {
			return nil
		}
		if !errors.Is(err, dm.ErrInUse) || time.Now().After(end) {
			return err
		}
	}
}
