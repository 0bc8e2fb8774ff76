// Package loop puts a block device over a file that is open, and need not have a
// name. It knows the calls of the loop driver (loop(4)), and no word of the
// product.
package loop

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Device is a loop device that is open. It exists until nobody has it open any
// more, whatever ends the process.
type Device struct {
	*os.File
	Number string // "MAJOR:MINOR"
}

// Control is the node of the driver, which is there before that is loaded.
const Control = "/dev/loop-control"

// tries is how often a free device is looked for: between the question and the
// call another one may take it.
const tries = 64

// Attach puts a device over a file that is open for writing. What is written to
// it goes past the page cache where the file system of the file lets it.
func Attach(f *os.File) (*Device, error) {
	control, err := unix.Open(Control, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: Control, Err: err}
	}
	defer unix.Close(control)
	for range tries {
		var n int
		if n, err = unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE); err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		var d *Device
		if d, err = attach(fmt.Sprintf("/dev/loop%d", n), f); err == nil {
			return d, nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return nil, err
		}
	}
	return nil, err
}

func attach(node string, f *os.File) (*Device, error) {
	loop, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	// Blocks of 512 bytes: what is mounted from a device above was made for such.
	config := unix.LoopConfig{Fd: uint32(f.Fd()), Size: 512}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, loop.Fd(), unix.LOOP_CONFIGURE, uintptr(unsafe.Pointer(&config)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return nil, errors.Join(fmt.Errorf("put %s over a file: %w", node, errno), loop.Close())
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(loop.Fd()), &st); err != nil {
		return nil, errors.Join(err, loop.Close())
	}
	return &Device{loop, fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))}, nil
}

// Carrier is the number of the device that the file of a loop device lies on, as
// stat says of the file.
func Carrier(name string) (string, error) {
	f, err := os.Open("/dev/" + name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return "", &os.PathError{Op: "LOOP_GET_STATUS64", Path: f.Name(), Err: err}
	}
	return fmt.Sprintf("%d:%d", unix.Major(info.Device), unix.Minor(info.Device)), nil
}
