package view

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"stillpoint/internal/snapshot/cow/index"
	"stillpoint/internal/sys/inode"
)

// setAttr fills in what stat(2) tells. Times before 1970 are negative numbers
// of seconds in 64 bits.
func (fs *fileSystem) setAttr(in *index.Inode, out *fuse.Attr) {
	*out = fuse.Attr{
		Ino:     in.Number,
		Size:    uint64(in.Size),
		Blocks:  uint64(in.Blocks),
		Mode:    in.Mode,
		Nlink:   in.Nlink,
		Owner:   fuse.Owner{Uid: in.UID, Gid: in.GID},
		Rdev:    in.Rdev, // the protocol has the same 32 bits
		Blksize: fs.ioSize,
	}
	out.Atime, out.Atimensec = unixTime(in.Atime)
	out.Mtime, out.Mtimensec = unixTime(in.Mtime)
	out.Ctime, out.Ctimensec = unixTime(in.Ctime)
}

// setStatx fills in what statx(2) tells: all of stat(2) and, where it is known,
// the time of birth.
func (fs *fileSystem) setStatx(in *index.Inode, out *fuse.Statx) {
	*out = fuse.Statx{
		Mask:      statxBasic,
		Blksize:   fs.ioSize,
		Nlink:     in.Nlink,
		Uid:       in.UID,
		Gid:       in.GID,
		Mode:      uint16(in.Mode),
		Ino:       in.Number,
		Size:      uint64(in.Size),
		Blocks:    uint64(in.Blocks),
		RdevMajor: in.Rdev >> 8 & 0xfff, // new_decode_dev() in linux/kdev_t.h
		RdevMinor: in.Rdev&0xff | in.Rdev>>12&0xfff00,
	}
	out.Atime.Sec, out.Atime.Nsec = unixTime(in.Atime)
	out.Mtime.Sec, out.Mtime.Nsec = unixTime(in.Mtime)
	out.Ctime.Sec, out.Ctime.Nsec = unixTime(in.Ctime)
	if in.Btime != 0 {
		out.Mask |= statxBirth
		out.Btime.Sec, out.Btime.Nsec = unixTime(in.Btime)
	}
}

// linux/stat.h: STATX_BASIC_STATS, STATX_BTIME.
const (
	statxBasic = 0x7ff
	statxBirth = 0x800
)

func unixTime(t inode.Time) (sec uint64, nsec uint32) {
	s, n := t.Unix()
	return uint64(s), uint32(n)
}
