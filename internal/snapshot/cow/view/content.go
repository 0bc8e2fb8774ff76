package view

import (
	"encoding/binary"
	"errors"
	"io"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"stillpoint/internal/snapshot/cow/index"
)

// Open tells the kernel that files need not be opened, and that their content
// may stay in its cache when they are opened again (fs/fuse/file.c,
// fuse_file_open).
func (fs *fileSystem) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// Flush tells the kernel that nothing needs to be done when files are closed.
func (fs *fileSystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Read reads content.
func (fs *fileSystem) Read(_ <-chan struct{}, input *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	in := fs.inode(input.NodeId)
	if in == nil {
		return nil, fuse.Status(syscall.ESTALE)
	}
	n, err := readFull(fs.source, in, buf, int64(input.Offset))
	if err != nil {
		return nil, status(err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// readFull reads all that is asked and lies within the file. To less the kernel
// would cut the file off (fs/fuse/file.c, fuse_short_read).
func readFull(s Source, in *index.Inode, p []byte, offset int64) (int, error) {
	if offset < 0 || offset >= in.Size {
		return 0, nil
	}
	p = p[:min(int64(len(p)), in.Size-offset)]
	for n := 0; n < len(p); {
		got, err := s.ReadAt(in.Number, p[n:], offset+int64(n))
		n += got
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return 0, err // also when all is there: it may be wrong
		case n < len(p) && (err != nil || got == 0):
			return 0, io.ErrUnexpectedEOF
		}
	}
	return len(p), nil
}

// Lseek finds data and holes.
func (fs *fileSystem) Lseek(_ <-chan struct{}, input *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	in := fs.inode(input.NodeId)
	if in == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if offset := int64(input.Offset); offset < 0 || offset >= in.Size {
		return fuse.Status(syscall.ENXIO)
	}
	if input.Whence != seekData && input.Whence != seekHole {
		return fuse.EINVAL
	}
	at, err := fs.source.Seek(in.Number, int64(input.Offset), input.Whence == seekHole)
	if err != nil {
		return status(err)
	}
	out.Offset = uint64(at)
	return fuse.OK
}

// linux/fs.h: SEEK_DATA, SEEK_HOLE.
const (
	seekData = 3
	seekHole = 4
)

// Ioctl tells the flags of an inode.
func (fs *fileSystem) Ioctl(_ <-chan struct{}, input *fuse.IoctlIn, _ []byte, _ *fuse.IoctlOut, out []byte) fuse.Status {
	in := fs.inode(input.NodeId)
	if in == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if input.Cmd != getFlags || len(out) < 4 {
		return fuse.Status(syscall.ENOTTY)
	}
	clear(out)
	binary.NativeEndian.PutUint32(out, in.Flags)
	return fuse.OK
}

// getFlags is FS_IOC_GETFLAGS, _IOR('f', 1, long), as 64-bit machines have it:
// all but MIPS, PowerPC and SPARC, which number reads otherwise.
const getFlags = 0x80086601
