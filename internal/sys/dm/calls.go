package dm

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The commands (linux/dm-ioctl.h).
const (
	cmdVersion   = 0
	cmdList      = 2
	cmdCreate    = 3
	cmdRemove    = 4
	cmdSuspend   = 6
	cmdStatus    = 7
	cmdLoad      = 9
	cmdClear     = 10
	cmdTable     = 12
	cmdMessage   = 14
	cmdVersionOf = 17 // of a target; from Linux 5.4 on
)

// ioctlOf is _IOWR(0xfd, command, struct dm_ioctl).
func ioctlOf(command uintptr) uintptr { return 3<<30 | headSize<<16 | 0xfd<<8 | command }

// Version of the interface: "4.48.0".
func (c *Control) Version() (string, error) {
	b, err := c.call("version", cmdVersion, request{name: ""})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d.%d.%d", native.Uint32(b), native.Uint32(b[4:]), native.Uint32(b[8:])), nil
}

// List has the numbers and names of all devices, and nothing else of them.
func (c *Control) List() ([]Device, error) {
	b, err := c.call("list", cmdList, request{room: 16 << 10})
	if err != nil {
		return nil, err
	}
	return names(b)
}

// Create makes a device without a table.
func (c *Control) Create(name, uuid string) (Device, error) {
	b, err := c.call("create "+name, cmdCreate, request{name: name, uuid: uuid})
	if err != nil {
		return Device{}, err
	}
	return device(b), nil
}

// Status of the device with the number.
func (c *Control) Status(n Number) (Device, error) {
	b, err := c.call("status of "+n.String(), cmdStatus, request{number: n})
	if err != nil {
		return Device{}, err
	}
	return device(b), nil
}

// StatusOf is Status of the device with the UUID.
func (c *Control) StatusOf(uuid string) (Device, error) {
	b, err := c.call("status of "+uuid, cmdStatus, request{uuid: uuid})
	if err != nil {
		return Device{}, err
	}
	return device(b), nil
}

// Load fills the slot of a device, in place of what may be there.
func (c *Control) Load(n Number, table []Target, readOnly bool) error {
	_, err := c.call("load a table into "+n.String(), cmdLoad, loading(n, table, readOnly))
	return err
}

func loading(n Number, table []Target, readOnly bool) request {
	r := request{number: n, table: table}
	if readOnly {
		r.flags |= flagReadOnly
	}
	return r
}

// Clear empties the slot.
func (c *Control) Clear(n Number) error {
	_, err := c.call("clear "+n.String(), cmdClear, request{number: n})
	return err
}

// Suspend lets everybody wait who reads or writes, when all has ended that is
// under way. The file system on it is not frozen.
func (c *Control) Suspend(n Number) error {
	_, err := c.call("suspend "+n.String(), cmdSuspend, suspending(n))
	return err
}

// suspending and resuming are without flagSecure: a call that waits is begun anew by the
// kernel after a signal, with our buffer, and that must not be wiped by then. Its version
// would be 0.0.0, which is EINVAL (copy_params and check_version in drivers/md/dm-ioctl.c).
func suspending(n Number) request {
	return request{number: n, flags: flagSuspend | flagSkipLockFS, bare: true}
}

func resuming(n Number, udev UdevFlags) request {
	return request{number: n, flags: flagSkipLockFS, udev: udev, bare: true}
}

// Resume makes the table in the slot the live one, if there is one, and lets
// everybody go on. It does not freeze the file system, and waits for all that is
// under way; Within ends that.
func (c *Control) Resume(n Number, udev UdevFlags) error {
	_, err := c.call("resume "+n.String(), cmdSuspend, resuming(n, udev))
	return err
}

// Remove removes a device that nobody has open.
func (c *Control) Remove(n Number, udev UdevFlags) error {
	_, err := c.call("remove "+n.String(), cmdRemove, request{number: n, udev: udev})
	return err
}

// RemoveLater removes a device now or, if it is open, when it is no more.
func (c *Control) RemoveLater(n Number, udev UdevFlags) error {
	_, err := c.call("remove "+n.String(), cmdRemove, request{number: n, udev: udev, flags: flagDeferred})
	return err
}

// Table is the live table; a device without one has none.
func (c *Control) Table(n Number) ([]Target, error) {
	return c.targets("table of "+n.String(), n, flagTable)
}

// Waiting is the table in the slot of a device, if there is one.
func (c *Control) Waiting(n Number) ([]Target, error) {
	return c.targets("table in the slot of "+n.String(), n, flagTable|flagSlot)
}

// State is what each target of the live table says of itself, in Params.
func (c *Control) State(n Number) ([]Target, error) {
	return c.targets("state of "+n.String(), n, 0)
}

func (c *Control) targets(what string, n Number, flags uint32) ([]Target, error) {
	b, err := c.call(what, cmdTable, looking(n, flags))
	if err != nil {
		return nil, err
	}
	return targets(b)
}

func looking(n Number, flags uint32) request {
	return request{number: n, flags: flags | flagNoFlush, room: 4 << 10}
}

// Message tells something to the target at a sector.
func (c *Control) Message(n Number, sector uint64, message string) error {
	extra := native.AppendUint64(nil, sector)
	extra = append(append(extra, message...), 0)
	_, err := c.call("message to "+n.String(), cmdMessage, request{number: n, extra: extra})
	return err
}

// mostRoom is for an answer: some ten thousand targets.
const mostRoom = 4 << 20

// call makes one call, again with more room as long as the answer does not fit.
// One that a signal ended is not made again.
func (c *Control) call(what string, command uintptr, r request) ([]byte, error) {
	for {
		b, err := r.encode()
		if err != nil {
			return nil, fmt.Errorf("device-mapper: %s: %w", what, err)
		}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, c.f.Fd(), ioctlOf(command), uintptr(unsafe.Pointer(&b[0])))
		runtime.KeepAlive(c)
		switch full := native.Uint32(b[offFlags:])&flagFull != 0; {
		case errno != 0:
			return nil, fmt.Errorf("device-mapper: %s: %w", what, errno)
		case full && r.room < mostRoom:
			r.room = max(r.room*4, 4<<10)
		case full:
			return nil, fmt.Errorf("device-mapper: %s: %w", what, errCut)
		default:
			return b, nil
		}
	}
}

// Has is nil when the kernel can make targets of a type. It may have to load a
// module for that.
func (c *Control) Has(kind string) error {
	_, err := c.call("targets of type "+kind, cmdVersionOf, request{name: kind})
	return err
}
