package inode

import (
	"golang.org/x/sys/unix"
)

// Attributes are what statx(2) tells of an inode.
type Attributes struct {
	Number   uint64
	Mode     uint32 // with the type, as st_mode
	UID, GID uint32
	Links    uint32
	Rdev     uint64 // what a device file stands for
	Device   uint64 // that holds the file
	Size     int64
	Blocks   int64 // of 512 bytes
	Accessed Time
	Modified Time
	Changed  Time
	Born     Time   // 0 where the file system does not know
	Flags    uint32 // inode flags, those that statx tells; values of FS_IOC_GETFLAGS
}

// Some inode flags have the same values for statx and FS_IOC_GETFLAGS
// (linux/stat.h).
const statxFlags = unix.STATX_ATTR_COMPRESSED | unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND | unix.STATX_ATTR_NODUMP |
	unix.STATX_ATTR_ENCRYPTED | unix.STATX_ATTR_VERITY

// Stat describes the inode of fd, however it was opened.
func Stat(fd int) (Attributes, error) {
	var st unix.Statx_t
	for {
		err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return Attributes{}, failed("statx", "", err)
		}
	}
	a := Attributes{
		Number:   st.Ino,
		Mode:     uint32(st.Mode),
		UID:      st.Uid,
		GID:      st.Gid,
		Links:    st.Nlink,
		Rdev:     unix.Mkdev(st.Rdev_major, st.Rdev_minor),
		Device:   unix.Mkdev(st.Dev_major, st.Dev_minor),
		Size:     int64(st.Size),
		Blocks:   int64(st.Blocks),
		Accessed: timeOf(st.Atime),
		Modified: timeOf(st.Mtime),
		Changed:  timeOf(st.Ctime),
		Flags:    uint32(st.Attributes & st.Attributes_mask & statxFlags),
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		a.Born = timeOf(st.Btime)
	}
	return a, nil
}

func timeOf(t unix.StatxTimestamp) Time { return TimeOf(t.Sec, int64(t.Nsec)) }
