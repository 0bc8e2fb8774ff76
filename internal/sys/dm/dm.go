// Package dm speaks to device-mapper: it makes, looks at, exchanges and removes
// tables of devices by the ioctls of /dev/mapper/control, without dmsetup. It
// knows the calls, and no word of the product.
//
// What must be known of them (drivers/md/dm-ioctl.c of Linux 6.12):
//
//   - A device has a live table and a slot for another one. Load fills the slot.
//     Resume makes the table in the slot the live one, in one call: it suspends
//     the device, waits for what is under way, exchanges the tables, and lets
//     go on. Without a table in the slot it only lets go on.
//   - A process that is killed in Resume leaves the device with either the one
//     or the other table, and not suspended: the wait ends with a signal. The
//     slot may then still have its table, which holds the devices in that.
//   - After a signal that has a handler with SA_RESTART, as all of Go's are, the
//     kernel begins the call anew (from August 2024 on, also in the stable
//     kernels), with the request that is in our memory then: one with
//     DM_SECURE_DATA_FLAG has been wiped, and fails with EINVAL. So Suspend and
//     Resume are without that flag. Older kernels say EINVAL of any Resume that
//     a signal interrupted, and the slot is empty.
//   - Who writes to a device that is suspended waits until somebody resumes it,
//     in a way that no signal ends. Status never waits.
//   - A mounted file system is frozen by a suspension, unless that is told not to.
//   - Names and UUIDs are each unique among all devices of the host; a UUID can
//     never be changed.
package dm

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// What the calls say, as errors.Is finds it in their errors.
const (
	ErrNone  = syscall.ENXIO // there is no such device
	ErrInUse = syscall.EBUSY // of Remove; of Create, there is one with the name or UUID
)

// A Control is the door to device-mapper. It may be used by several goroutines.
type Control struct{ f *os.File }

// Open opens it. Where the kernel has no device-mapper, or has not loaded it, the
// error is fs.ErrNotExist, or ENODEV.
func Open() (*Control, error) {
	f, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	c := &Control{f}
	if _, err := c.Version(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return c, nil
}

// Loaded tells whether the kernel has device-mapper now. Open would load its module,
// whose node is there without it.
func Loaded() bool {
	_, err := os.Stat("/sys/class/misc/device-mapper")
	return err == nil
}

// File is the descriptor of the door, for who resumes devices by it.
func (c *Control) File() *os.File { return c.f }

// Close closes the door.
func (c *Control) Close() error { return c.f.Close() }

// A Device is one device of device-mapper as it is now.
type Device struct {
	Name      string
	UUID      string // may be empty
	Number    Number
	Open      int  // by how many it is open, of tables above, mounts and processes
	Suspended bool // who writes to it waits
	Live      bool // it has a table
	Loaded    bool // there is one in the slot
	ReadOnly  bool
	Event     uint32
}

// A Number is that of a block device.
type Number struct{ Major, Minor uint32 }

// String is "MAJOR:MINOR".
func (n Number) String() string { return fmt.Sprintf("%d:%d", n.Major, n.Minor) }

// ParseNumber reads "MAJOR:MINOR".
func ParseNumber(s string) (Number, error) {
	var n Number
	if got, err := fmt.Sscanf(s, "%d:%d", &n.Major, &n.Minor); got != 2 || err != nil || n.String() != s {
		return n, fmt.Errorf("%q is not the number of a device", s)
	}
	return n, nil
}

// Node is the path of the device's node, as devtmpfs makes it.
func (d Device) Node() string { return fmt.Sprintf("/dev/dm-%d", d.Number.Minor) }

// A Target is one piece of a table.
type Target struct {
	Start  uint64 // sectors of 512 bytes
	Length uint64
	Type   string
	Params string // may hold keys: not for people, and not for logs
}

// Sectors is how long a table is.
func Sectors(table []Target) uint64 {
	var n uint64
	for _, t := range table {
		n = max(n, t.Start+t.Length)
	}
	return n
}
