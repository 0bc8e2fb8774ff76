// Package tree knows file trees: the entry that describes one name with all
// its attributes, how a tree is walked and read without being led astray, and
// how it is made again. It works with directory descriptors and names, never
// with long paths, so that depth and races do not matter. It does not know
// where trees come from, but that a snapshot may have a Reader, or where they are
// stored.
package tree

import "time"

// Type is the kind of a file.
type Type string

// The types.
const (
	File      Type = "file"
	Directory Type = "dir"
	Symlink   Type = "symlink"
	FIFO      Type = "fifo"
	Char      Type = "char"
	Block     Type = "block"
	Socket    Type = "socket"
)

// An Entry is one name in a directory with everything that is needed to make
// it again and to notice that it changed.
type Entry struct {
	Name   string // as the kernel has it: any bytes but '/' and NUL
	Type   Type
	Mode   uint32 // permission bits with set-uid, set-gid and sticky: 07777
	UID    uint32
	GID    uint32
	Size   int64  // bytes of content of a file, of the target of a symlink
	Blocks int64  // 512-byte blocks the file occupies; not stored
	Target string // of a symlink

	Modified time.Time // mtime
	Changed  time.Time // ctime
	Inode    uint64
	Links    uint64 // number of hard links
	Device   uint64 // of char and block devices: makedev(major, minor) as the kernel encodes it

	Flags  Flags   // what chattr sets
	XAttrs []XAttr // by name; ACLs, file capabilities and security labels among them
	Holes  []Range // of a sparse file, in order
}

// An XAttr is one extended attribute.
type XAttr struct {
	Name  string
	Value []byte
}

// A Range is a stretch of a file, in bytes.
type Range struct {
	Offset int64
	Length int64
}

// Flags are inode flags that chattr sets and that survive in a backup. The
// values are those of FS_IOC_GETFLAGS (linux/fs.h). Not among them is what a
// file system sets by itself, as btrfs does with +m on files that did not
// become smaller.
type Flags uint32

// The flags that are kept.
const (
	Compressed Flags = 0x00000004 // chattr +c
	Sync       Flags = 0x00000008 // chattr +S
	Immutable  Flags = 0x00000010 // chattr +i
	AppendOnly Flags = 0x00000020 // chattr +a
	NoDump     Flags = 0x00000040 // chattr +d
	NoAtime    Flags = 0x00000080 // chattr +A
	DirSync    Flags = 0x00010000 // chattr +D
	NoCOW      Flags = 0x00800000 // chattr +C
)

const (
	keptFlags   = Compressed | Sync | Immutable | AppendOnly | NoDump | NoAtime | DirSync | NoCOW
	frozenFlags = Immutable | AppendOnly       // forbid every further change
	lateFlags   = frozenFlags | Sync | DirSync // set when all else is done
)
