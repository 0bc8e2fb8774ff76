package inode

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The inode flags that file_getattr(2) tells under names of its own
// (linux/fs.h: FS_XFLAG_*), and their values for FS_IOC_GETFLAGS (FS_*_FL).
var xflags = []struct{ x, flag uint32 }{
	{0x00000008, 0x00000010}, // immutable
	{0x00000010, 0x00000020}, // append only
	{0x00000020, 0x00000008}, // synchronous
	{0x00000040, 0x00000080}, // no access time
	{0x00000080, 0x00000040}, // no dump
	{0x00000200, 0x20000000}, // inherit the project
	{0x00008000, 0x02000000}, // direct access
}

// fileAttr is struct file_attr of linux/fs.h.
type fileAttr struct {
	xflags  uint64
	_, _    uint32
	project uint32
	_       uint32
}

// Flags returns the inode flags of name in the directory dir without opening
// it, those that are listed above. A symbolic link is followed if follow says
// so. It fails with ENOSYS before Linux 6.17, and with EOPNOTSUPP where the file
// system has none.
func Flags(dir int, name string, follow bool) (flags uint32, err error) {
	at := unix.AT_SYMLINK_NOFOLLOW
	if follow {
		at = 0
	}
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, failed("file_getattr", name, err)
	}
	var a fileAttr
	_, _, errno := unix.Syscall6(unix.SYS_FILE_GETATTR, uintptr(dir), uintptr(unsafe.Pointer(path)),
		uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a), uintptr(at), 0)
	if errno != 0 {
		return 0, failed("file_getattr", name, errno)
	}
	for _, f := range xflags {
		if uint32(a.xflags)&f.x != 0 {
			flags |= f.flag
		}
	}
	return flags, nil
}
