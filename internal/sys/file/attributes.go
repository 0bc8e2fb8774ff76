package file

import (
	"time"

	"golang.org/x/sys/unix"
)

// The functions below take an open descriptor of any type of file. Those with
// Place in their name are for descriptors opened as Place; they need /proc.

// Keep as an owner or a group leaves it as it is.
const Keep = -1

// SetOwner sets owner and group of fd, however it was opened.
func SetOwner(fd, uid, gid int) error {
	return result("fchownat", "", unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH))
}

// SetMode sets the permission bits of fd.
func SetMode(fd int, mode uint32) error {
	return result("fchmod", "", unix.Fchmod(fd, mode))
}

// SetPlaceMode is SetMode. fchmod(2) refuses such descriptors; a path through
// /proc leads to the very same file, which is not a symbolic link any more.
func SetPlaceMode(fd int, mode uint32) error {
	return result("fchmodat", "", unix.Fchmodat(Here, procPath(fd, ""), mode, 0))
}

// SetModified sets the time of the last change of content, of fd however it
// was opened.
func SetModified(fd int, t time.Time) error {
	times := []unix.Timespec{
		{Nsec: unix.UTIME_OMIT},
		{Sec: t.Unix(), Nsec: int64(t.Nanosecond())},
	}
	err := unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
	// Before Linux 5.8 descriptors opened as Place are refused.
	if err == unix.EINVAL || err == unix.EBADF {
		err = unix.UtimesNanoAt(Here, procPath(fd, ""), times, 0)
	}
	return result("utimensat", "", err)
}

// ListXattrs returns the names of the extended attributes of fd.
func ListXattrs(fd int) ([]string, error) {
	buf := make([]byte, xattrUsual)
	n, err := unix.Flistxattr(fd, buf)
	if err == unix.ERANGE {
		buf = make([]byte, xattrMax)
		n, err = unix.Flistxattr(fd, buf)
	}
	if err != nil {
		return nil, failed("listxattr", "", err)
	}
	return xattrNames(buf[:n]), nil
}

// GetXattr returns the value of one extended attribute of fd.
func GetXattr(fd int, name string) ([]byte, error) {
	buf := make([]byte, xattrUsual)
	n, err := unix.Fgetxattr(fd, name, buf)
	if err == unix.ERANGE {
		buf = make([]byte, xattrMax)
		n, err = unix.Fgetxattr(fd, name, buf)
	}
	if err != nil {
		return nil, failed("getxattr", name, err)
	}
	return buf[:n], nil
}

// SetXattr sets one extended attribute of fd.
func SetXattr(fd int, name string, value []byte) error {
	return result("setxattr", name, unix.Fsetxattr(fd, name, value, 0))
}

// SetPlaceXattr is SetXattr.
func SetPlaceXattr(fd int, name string, value []byte) error {
	return result("setxattr", name, unix.Setxattr(procPath(fd, ""), name, value, 0))
}

// RemoveXattr removes one extended attribute of fd.
func RemoveXattr(fd int, name string) error {
	return result("removexattr", name, unix.Fremovexattr(fd, name))
}

// Flags returns the inode flags of fd. It fails with ENOTTY or EOPNOTSUPP
// where the file system has none.
func Flags(fd int) (uint32, error) {
	n, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return 0, failed("FS_IOC_GETFLAGS", "", err)
	}
	return n, nil
}

// SetFlags sets the inode flags of fd to exactly these.
func SetFlags(fd int, flags uint32) error {
	return result("FS_IOC_SETFLAGS", "", unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags)))
}
