package index

import (
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"stillpoint/internal/sys/inode"
)

// An Inode is one file, whatever its type and however many names it has. It is
// kept small: on 64-bit machines it has 176 bytes; with its place in a table, a
// name of 30 letters and its place in a directory it takes 290.
type Inode struct {
	Number       uint64
	Handle       inode.Handle
	Mode         uint32 // with the type, as st_mode
	UID, GID     uint32
	Nlink        uint32
	Rdev         uint32 // what a device file stands for, as in st_rdev, which has 32 bits in Linux
	Flags        uint32 // with the values of FS_IOC_GETFLAGS: chattr's cSiadAxPEV, of directories D
	Size, Blocks int64  // blocks of 512 bytes
	Atime, Mtime inode.Time
	Ctime        inode.Time
	Btime        inode.Time // 0 if not known
	XAttrs       []XAttr    // sorted by name; shared with files that have the same
	Target       string     // of a symbolic link
	Children     []Child    // of a directory, sorted by name; in one that only leads to selected paths, just those
	parent       *Inode     // a directory that may have a name for it
	names        int32      // how many children stand for this number; with none it is not in the index
}

// An XAttr is one extended attribute as listxattr(2) and getxattr(2) show it.
type XAttr struct{ Name, Value string }

// A Child is one name in a directory.
type Child struct {
	Name   string
	Number uint64
}

// IsRegular tells whether it is a regular file.
func (in *Inode) IsRegular() bool { return in.Mode&syscall.S_IFMT == syscall.S_IFREG }

// IsDir tells whether it is a directory.
func (in *Inode) IsDir() bool { return in.Mode&syscall.S_IFMT == syscall.S_IFDIR }

// Child returns the number that a name in the directory stands for.
func (in *Inode) Child(name string) (number uint64, ok bool) {
	i, ok := find(in.Children, name)
	if !ok {
		return 0, false
	}
	return in.Children[i].Number, true
}

// find returns where a name is, or would be.
func find(children []Child, name string) (int, bool) {
	return slices.BinarySearchFunc(children, name, func(c Child, name string) int { return strings.Compare(c.Name, name) })
}

// indexed tells whether any indexed name stands for it.
func (in *Inode) indexed() bool { return in != nil && atomic.LoadInt32(&in.names) > 0 }

// update enters what was seen of the same inode again. Number, handle and type
// stay, and are read without a lock.
func (in *Inode) update(seen *Inode) {
	in.Mode, in.UID, in.GID, in.Nlink = seen.Mode, seen.UID, seen.GID, seen.Nlink
	in.Flags = seen.Flags | in.Flags&dirFlags
	in.Size, in.Blocks = seen.Size, seen.Blocks
	in.Atime, in.Mtime, in.Ctime = seen.Atime, seen.Mtime, seen.Ctime
	in.XAttrs = seen.XAttrs
}
