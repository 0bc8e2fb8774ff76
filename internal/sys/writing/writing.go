// Package writing has the rarer ways to change files, those for which Go has no
// words: by the memory of a process, by ranges of other files, asynchronously.
// It is for tests of whatever must notice changes. A failure is the kernel's
// errno in an fs.PathError with the call; what a file system does not have is
// refused with errors.ErrUnsupported.
package writing

import (
	"io/fs"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// CopyRange copies between files within the kernel (copy_file_range(2)).
func CopyRange(to int, toOffset int64, from int, fromOffset int64, n int) error {
	for n > 0 {
		done, err := unix.CopyFileRange(from, &fromOffset, to, &toOffset, n, 0)
		if err != nil {
			return failed("copy_file_range", err)
		}
		if done == 0 {
			return failed("copy_file_range", unix.EIO)
		}
		n -= done
	}
	return nil
}

// Clone makes a file share all blocks of another one.
func Clone(to, from int) error {
	return result("ficlone", unix.IoctlFileClone(to, from))
}

// CloneRange makes a file share some blocks of another one.
func CloneRange(to int, toOffset int64, from int, fromOffset, n int64) error {
	return result("ficlonerange", unix.IoctlFileCloneRange(to, &unix.FileCloneRange{
		Src_fd: int64(from), Src_offset: uint64(fromOffset), Src_length: uint64(n), Dest_offset: uint64(toOffset)}))
}

// Dedupe makes a file share blocks of another one, which must be equal.
func Dedupe(to int, toOffset int64, from int, fromOffset, n int64) error {
	r := unix.FileDedupeRange{Src_offset: uint64(fromOffset), Src_length: uint64(n),
		Info: []unix.FileDedupeRangeInfo{{Dest_fd: int64(to), Dest_offset: uint64(toOffset)}}}
	if err := unix.IoctlFileDedupeRange(from, &r); err != nil {
		return failed("fideduperange", err)
	}
	switch status := r.Info[0].Status; {
	case status < 0:
		return failed("fideduperange", unix.Errno(-status))
	case status != unix.FILE_DEDUPE_RANGE_SAME || r.Info[0].Bytes_deduped == 0:
		return failed("fideduperange", unix.EIO)
	}
	return nil
}

// ExchangeNames gives two names each other's file (renameat2(2)).
func ExchangeNames(a, b string) error {
	return result("renameat2", unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE))
}

// IntoMemory writes to the memory of this process as another one would
// (process_vm_writev(2)).
func IntoMemory(memory, p []byte) error {
	var pins runtime.Pinner
	defer pins.Unpin()
	pins.Pin(&p[0])
	local := []unix.Iovec{{Base: &p[0]}}
	local[0].SetLen(len(p))
	remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&memory[0])), Len: len(p)}}
	n, err := unix.ProcessVMWritev(unix.Getpid(), local, remote, 0)
	if err == nil && n != len(p) {
		err = unix.EFAULT
	}
	return result("process_vm_writev", err)
}

// Asynchronously writes with the kernel's own asynchronous I/O (io_submit(2)).
func Asynchronously(fd int, p []byte, offset int64) error {
	var context uintptr
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&context)), 0); errno != 0 {
		return failed("io_setup", errno)
	}
	defer unix.Syscall(unix.SYS_IO_DESTROY, context, 0, 0)
	var pins runtime.Pinner
	defer pins.Unpin()
	block := struct { // struct iocb, linux/aio_abi.h
		data       uint64
		key, flags uint32
		opcode     uint16
		priority   int16
		fd         uint32
		buffer     uint64
		length     uint64
		offset     int64
		_          uint64
		_, _       uint32
	}{opcode: 1 /* IOCB_CMD_PWRITE */, fd: uint32(fd), buffer: uint64(uintptr(unsafe.Pointer(&p[0]))), length: uint64(len(p)), offset: offset}
	pins.Pin(&p[0])
	pins.Pin(&block)
	blocks := [1]unsafe.Pointer{unsafe.Pointer(&block)}
	if _, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, context, 1, uintptr(unsafe.Pointer(&blocks))); errno != 0 {
		return failed("io_submit", errno)
	}
	var done struct { // struct io_event
		data, object uint64
		result, more int64
	}
	for {
		_, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, context, 1, 1, uintptr(unsafe.Pointer(&done)), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return failed("io_getevents", errno)
		}
		return whole("aio write", done.result, len(p))
	}
}

// whole is nil when as much was written as wanted.
func whole(call string, n int64, want int) error {
	switch {
	case n < 0:
		return failed(call, unix.Errno(-n))
	case n != int64(want):
		return failed(call, unix.EIO)
	}
	return nil
}

func code(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func failed(call string, err error) error { return &fs.PathError{Op: call, Err: err} }

func result(call string, err error) error {
	if err == nil {
		return nil
	}
	return failed(call, err)
}
