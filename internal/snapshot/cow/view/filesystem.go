package view

import (
	"errors"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"stillpoint/internal/snapshot/cow/index"
)

// A fileSystem answers the kernel. What it does not answer is "not
// implemented", after which the kernel does not ask again.
type fileSystem struct {
	fuse.RawFileSystem
	source Source
	root   uint64
	ioSize uint32
}

func newFileSystem(s Source) *fileSystem {
	return &fileSystem{RawFileSystem: fuse.NewDefaultRawFileSystem(), source: s, root: s.Root(), ioSize: s.Statfs().IOSize}
}

// String names the file system to go-fuse.
func (fs *fileSystem) String() string { return "stillpoint" }

// The kernel knows files by node numbers, of which 1 is the root: the inode
// number and the node number of a file are the same but for the root and for
// whatever has the inode number 1, which swap.
func (fs *fileSystem) swap(number uint64) uint64 {
	switch number {
	case fuse.FUSE_ROOT_ID:
		return fs.root
	case fs.root:
		return fuse.FUSE_ROOT_ID
	}
	return number
}

func (fs *fileSystem) inode(node uint64) *index.Inode { return fs.source.Inode(fs.swap(node)) }

// forever is how long the kernel may keep what it was told.
const forever = 365 * 24 * time.Hour

// Lookup finds a name in a directory.
func (fs *fileSystem) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir := fs.inode(header.NodeId)
	if dir == nil {
		return fuse.Status(syscall.ESTALE)
	}
	number, ok := dir.Child(name)
	if !ok {
		out.SetEntryTimeout(forever) // that there is no such name holds as long
		return fuse.OK
	}
	in := fs.source.Inode(number)
	if in == nil {
		return fuse.Status(syscall.ESTALE)
	}
	fs.entry(in, out)
	return fuse.OK
}

func (fs *fileSystem) entry(in *index.Inode, out *fuse.EntryOut) {
	out.NodeId = fs.swap(in.Number)
	out.Generation = 1
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	fs.setAttr(in, &out.Attr)
}

// GetAttr describes a file as stat(2) does.
func (fs *fileSystem) GetAttr(_ <-chan struct{}, input *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	in := fs.inode(input.NodeId)
	if in == nil {
		return fuse.Status(syscall.ESTALE)
	}
	out.SetTimeout(forever)
	fs.setAttr(in, &out.Attr)
	return fuse.OK
}

// Statx is asked for the time of birth only.
func (fs *fileSystem) Statx(_ <-chan struct{}, input *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	in := fs.inode(input.NodeId)
	if in == nil {
		return fuse.Status(syscall.ESTALE)
	}
	out.SetTimeout(forever)
	fs.setStatx(in, &out.Statx)
	return fuse.OK
}

// Readlink returns the target of a symbolic link.
func (fs *fileSystem) Readlink(_ <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	in := fs.inode(header.NodeId)
	if in == nil {
		return nil, fuse.Status(syscall.ESTALE)
	}
	return []byte(in.Target), fuse.OK
}

// GetXAttr returns one extended attribute.
func (fs *fileSystem) GetXAttr(_ <-chan struct{}, header *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	in := fs.inode(header.NodeId)
	if in == nil {
		return 0, fuse.Status(syscall.ESTALE)
	}
	for i := range in.XAttrs {
		if in.XAttrs[i].Name == name {
			return fill(dest, len(in.XAttrs[i].Value), func(b []byte) []byte { return append(b, in.XAttrs[i].Value...) })
		}
	}
	return 0, fuse.ENOATTR
}

// ListXAttr returns the names of all extended attributes, each ended by a NUL.
func (fs *fileSystem) ListXAttr(_ <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	in := fs.inode(header.NodeId)
	if in == nil {
		return 0, fuse.Status(syscall.ESTALE)
	}
	size := 0
	for i := range in.XAttrs {
		size += len(in.XAttrs[i].Name) + 1
	}
	return fill(dest, size, func(b []byte) []byte {
		for i := range in.XAttrs {
			b = append(append(b, in.XAttrs[i].Name...), 0)
		}
		return b
	})
}

// fill puts size bytes into dest, or says how many there would be.
func fill(dest []byte, size int, put func([]byte) []byte) (uint32, fuse.Status) {
	if len(dest) < size {
		return uint32(size), fuse.ERANGE
	}
	put(dest[:0])
	return uint32(size), fuse.OK
}

// StatFs describes the volume.
func (fs *fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	s := fs.source.Statfs()
	*out = fuse.StatfsOut{
		Blocks: s.Blocks, Bfree: s.Free, Bavail: s.Available, Files: s.Files, Ffree: s.FreeFiles,
		Bsize: s.BlockSize, Frsize: s.BlockSize, NameLen: s.NameMax,
	}
	return fuse.OK
}

// status is the errno that a reader gets. Some have a meaning to the kernel or
// to a reader that ours would not have.
func status(err error) fuse.Status {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fuse.EIO
	}
	switch errno {
	case 0, syscall.ENOSYS, syscall.EINTR, syscall.EAGAIN, syscall.EBADF, syscall.ENOENT:
		return fuse.EIO
	}
	return fuse.Status(errno)
}
