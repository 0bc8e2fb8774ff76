package file

import (
	"time"

	"golang.org/x/sys/unix"
)

// Kind is the type of a file as in the mode of stat(2).
type Kind uint32

// The kinds; Unknown is what a directory may say instead of one.
const (
	Unknown   Kind = 0
	Regular   Kind = unix.S_IFREG
	Folder    Kind = unix.S_IFDIR
	Symlink   Kind = unix.S_IFLNK
	FIFO      Kind = unix.S_IFIFO
	Character Kind = unix.S_IFCHR
	Block     Kind = unix.S_IFBLK
	Socket    Kind = unix.S_IFSOCK
)

// Info is what statx tells.
type Info struct {
	Kind      Kind
	Mode      uint32 // 07777
	UID       uint32
	GID       uint32
	Links     uint64
	Size      int64
	Blocks    int64 // of 512 bytes
	Modified  time.Time
	Changed   time.Time
	Inode     uint64
	Device    uint64 // that holds the file
	Node      uint64 // that a device file stands for
	Mount     uint64 // ID of the mount; 0 before Linux 5.8
	Flags     uint32 // inode flags, those that statx tells; values of FS_IOC_GETFLAGS
	Automount bool   // an autofs trigger
}

// Statx reports some inode flags, with the values of FS_IOC_GETFLAGS
// (linux/stat.h: STATX_ATTR_COMPRESSED and so on).
const statxFlags = unix.STATX_ATTR_COMPRESSED | unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND | unix.STATX_ATTR_NODUMP

// Stat describes name in the directory dir.
func Stat(dir int, name string, at At) (Info, error) {
	var st unix.Statx_t
	for {
		err := unix.Statx(dir, name, int(at), unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st)
		if err == nil {
			return info(&st), nil
		}
		if err != unix.EINTR {
			return Info{}, failed("statx", name, err)
		}
	}
}

func info(st *unix.Statx_t) Info {
	i := Info{
		Kind:      Kind(st.Mode & unix.S_IFMT),
		Mode:      uint32(st.Mode) & 0o7777,
		UID:       st.Uid,
		GID:       st.Gid,
		Links:     uint64(st.Nlink),
		Size:      int64(st.Size),
		Blocks:    int64(st.Blocks),
		Modified:  time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)),
		Changed:   time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec)),
		Inode:     st.Ino,
		Device:    unix.Mkdev(st.Dev_major, st.Dev_minor),
		Node:      unix.Mkdev(st.Rdev_major, st.Rdev_minor),
		Flags:     uint32(st.Attributes & st.Attributes_mask & statxFlags),
		Automount: st.Attributes&unix.STATX_ATTR_AUTOMOUNT != 0,
	}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		i.Mount = st.Mnt_id
	}
	return i
}

// Readlink returns the target of the symbolic link name in dir, or with an
// empty name of the one that dir, opened as Place, points at.
func Readlink(dir int, name string) (string, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(dir, name, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", failed("readlinkat", name, err)
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// FSType is the magic number of the file system that fd is on (statfs(2)).
func FSType(fd int) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return 0, failed("fstatfs", "", err)
	}
	return int64(st.Type), nil
}

// Values of FSType (linux/magic.h).
const (
	BtrfsFS int64 = unix.BTRFS_SUPER_MAGIC
	ProcFS  int64 = unix.PROC_SUPER_MAGIC
)
