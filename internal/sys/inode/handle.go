package inode

import (
	"encoding/binary"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// handleMost is the longest handle that fits: ext4's have 8 bytes, XFS's 12.
const handleMost = 14

// A Handle names one inode of a file system for as long as that exists: when
// its number is used again, the next inode has another handle. Handles can be
// compared; the zero value is none.
type Handle struct {
	kind uint8
	size uint8
	data [handleMost]byte
}

// The kinds of handles whose content is known (linux/exportfs.h). XFS adds the
// bit 0x80 to the kind with 64 bits (fs/xfs/xfs_export.h).
const (
	kindIno32 = 0x01 // 32 bits of inode number, 32 bits of generation
	kindIno64 = 0x81 // 64 bits of inode number, 32 bits of generation
)

// New makes a Handle of what the kernel calls one; ok is false when it is too
// long or none at all.
func New(kind int32, data []byte) (h Handle, ok bool) {
	if kind <= 0 || kind >= 0xff || len(data) == 0 || len(data) > handleMost {
		return Handle{}, false // 0xff is FILEID_INVALID
	}
	h.kind, h.size = uint8(kind), uint8(len(data))
	copy(h.data[:], data)
	return h, true
}

// IsZero tells whether h is none.
func (h Handle) IsZero() bool { return h.size == 0 }

// Number is the inode number; 0 where the handle does not show it.
func (h Handle) Number() uint64 {
	switch {
	case h.kind == kindIno32 && h.size >= 4:
		return uint64(binary.NativeEndian.Uint32(h.data[:]))
	case h.kind == kindIno64 && h.size >= 8:
		return binary.NativeEndian.Uint64(h.data[:])
	}
	return 0
}

// raw is struct file_handle.
type raw struct {
	size uint32
	kind int32
	data [handleMost]byte
}

// Of returns the handle of name in the directory dir, or with an empty name
// that of dir itself, however it was opened. A symbolic link is not followed.
// It fails with EOVERFLOW where handles are longer than those of ext4 and XFS,
// and with EOPNOTSUPP where there are none.
func Of(dir int, name string) (Handle, error) {
	flags := 0 // name_to_handle_at(2) follows only when asked to
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		return Handle{}, failed("name_to_handle_at", name, err)
	}
	r := raw{size: handleMost}
	var mount int32
	_, _, errno := unix.Syscall6(unix.SYS_NAME_TO_HANDLE_AT, uintptr(dir), uintptr(unsafe.Pointer(path)),
		uintptr(unsafe.Pointer(&r)), uintptr(unsafe.Pointer(&mount)), uintptr(flags), 0)
	if errno != 0 {
		return Handle{}, failed("name_to_handle_at", name, errno)
	}
	h, ok := New(r.kind, r.data[:min(r.size, handleMost)])
	if !ok {
		return Handle{}, failed("name_to_handle_at", name, unix.EOVERFLOW)
	}
	return h, nil
}

// Open opens the inode of a handle through the mount that the descriptor mount
// lies in, which must not be one of O_PATH. It fails with ESTALE when the inode
// is gone, which it is not while anything keeps it open. It needs
// CAP_DAC_READ_SEARCH.
func Open(mount int, h Handle, flags int) (int, error) {
	r := raw{size: uint32(h.size), kind: int32(h.kind), data: h.data}
	for try := 0; ; try++ {
		fd, _, errno := unix.Syscall(unix.SYS_OPEN_BY_HANDLE_AT, uintptr(mount), uintptr(unsafe.Pointer(&r)), uintptr(flags|unix.O_CLOEXEC))
		if errno == 0 {
			return int(fd), nil
		}
		// While the number is about to be used again ext4 says ENOMEM
		// (ext4_iget, iget_locked and I_CREATING), and ESTALE after that.
		if errno == unix.ENOMEM && try < creatingMost {
			time.Sleep(time.Millisecond)
			continue
		}
		if errno != unix.EINTR {
			return -1, failed("open_by_handle_at", "", errno)
		}
	}
}

// creatingMost is how many milliseconds it may take to create an inode.
const creatingMost = 100

// Place opens the inode of a handle as a place only, of whatever type it is.
func Place(mount int, h Handle) (int, error) { return Open(mount, h, unix.O_PATH|unix.O_NOFOLLOW) }
