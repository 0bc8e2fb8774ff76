package view

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"stillpoint/internal/snapshot/cow/index"
)

// OpenDir tells the kernel that directories need not be opened.
func (fs *fileSystem) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// The offset of an entry in a directory is that of the next one in the order
// of names, after "." and "..": it stays as it is, and finding it costs nothing.
const dots = 2

// ReadDir lists names.
func (fs *fileSystem) ReadDir(_ <-chan struct{}, input *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.list(input, func(e fuse.DirEntry, in *index.Inode) bool { return out.AddDirEntry(e) })
}

// ReadDirPlus lists names with their attributes, as if each were looked up.
func (fs *fileSystem) ReadDirPlus(_ <-chan struct{}, input *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.list(input, func(e fuse.DirEntry, in *index.Inode) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if in != nil {
			fs.entry(in, entry)
		}
		return true
	})
}

// list hands out entries from the offset on until add has no more room. The
// inode is nil for the dots.
func (fs *fileSystem) list(input *fuse.ReadIn, add func(fuse.DirEntry, *index.Inode) bool) fuse.Status {
	dir := fs.inode(input.NodeId)
	if dir == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if !dir.IsDir() {
		return fuse.ENOTDIR
	}
	for at := input.Offset; at < uint64(len(dir.Children)+dots); at++ {
		e := fuse.DirEntry{Off: at + 1, Mode: syscall.S_IFDIR}
		var in *index.Inode
		switch at {
		case 0:
			e.Name, e.Ino = ".", dir.Number
		case 1:
			e.Name = ".." // its number is not asked for: whoever goes there looks it up
		default:
			child := &dir.Children[at-dots]
			if in = fs.source.Inode(child.Number); in == nil {
				return fuse.Status(syscall.ESTALE)
			}
			e.Name, e.Ino, e.Mode = child.Name, child.Number, in.Mode
		}
		if !add(e, in) {
			break
		}
	}
	return fuse.OK
}
