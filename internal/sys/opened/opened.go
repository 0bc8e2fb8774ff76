// Package opened asks the kernel how open files are held, where /proc does not
// tell it in text: shared mappings one by one, whether two tasks share a table
// of descriptors, the backing file of a loop device, and whether an open file
// makes pre-content events. It knows no word of the product. A failure is the
// kernel's errno in an fs.PathError with the call.
package opened

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// SameTable tells whether two tasks share their table of descriptors
// (kcmp(2)). A task that has ended has none.
func SameTable(a, b int) (bool, error) {
	const files = 2 // KCMP_FILES, linux/kcmp.h
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), files, 0, 0, 0)
	if errno != 0 {
		return false, failed("kcmp", errno)
	}
	return r == 0, nil
}

// Duplicate returns a duplicate of a descriptor of another task: the same open
// file, with its position, flags and locks. Whoever has it may keep the
// file from being closed, so it is held for a moment only.
func Duplicate(task, fd int) (int, error) {
	handle, err := unix.PidfdOpen(task, unix.PIDFD_THREAD)
	if err != nil {
		return -1, failed("pidfd_open", err)
	}
	defer unix.Close(handle)
	own, err := unix.PidfdGetfd(handle, fd, 0)
	if err != nil {
		return -1, failed("pidfd_getfd", err)
	}
	return own, nil
}

// A Backing is the file behind a loop device.
type Backing struct {
	Device   uint64 // of the file system that has it, as stat(2) says
	Inode    uint64
	ReadOnly bool
}

// LoopBacking returns the backing file of the loop device at path. It fails
// with ENXIO where the device has none.
func LoopBacking(path string) (Backing, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return Backing{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return Backing{}, &fs.PathError{Op: "loop_get_status64", Path: path, Err: err}
	}
	// lo_device has the kernel's own encoding that it gives to old user space
	// (huge_encode_dev in drivers/block/loop.c), which stat(2) has, too.
	return Backing{Device: info.Device, Inode: info.Inode, ReadOnly: info.Flags&unix.LO_FLAGS_READ_ONLY != 0}, nil
}

func failed(call string, err error) error { return &fs.PathError{Op: call, Err: err} }

// AnonymousDevice is the device of files that are only ever open: eventfd,
// epoll, io_uring and so on have the inode of one small file system.
func AnonymousDevice() (uint64, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return 0, failed("eventfd", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, failed("fstat", err)
	}
	return st.Dev, nil
}
