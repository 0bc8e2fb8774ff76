// Package extents counts the pieces that files, and what is free on a volume,
// are in. It reads what the file system knows of its blocks, not the blocks, and
// knows no word of the product. A failure is the kernel's errno in an
// fs.PathError.
package extents

import (
	"context"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a file system says that does not tell, as errors.Is finds it.
const (
	ErrUnsupported = unix.EOPNOTSUPP // of Of
	ErrNoMap       = unix.ENOTTY     // of Free
)

// The calls (linux/fiemap.h, linux/fsmap.h).
const (
	fiemapCall = 0xc020660b // FS_IOC_FIEMAP
	fsmapCall  = 0xc0c0583b // FS_IOC_GETFSMAP
)

// Most is how many pieces of a file are counted, atOnce how many of them by one
// call. Whoever writes to it waits meanwhile, on XFS, so it is not for as long as
// there are pieces.
const (
	Most   = 4096
	atOnce = 64
)

// lastExtent is a flag of struct fiemap_extent: none comes behind it.
const lastExtent = 1

// extent is struct fiemap_extent.
type extent struct {
	logical, physical, length uint64
	reserved64                [2]uint64
	flags                     uint32
	reserved                  [3]uint32
}

// fiemap is struct fiemap with its extents.
type fiemap struct {
	start, length                        uint64
	flags, mapped, extentCount, reserved uint32
	extents                              [atOnce]extent
}

// Of returns in how many pieces a file is, and how many bytes they are together.
// If there are Most of them, there may be more.
func Of(f *os.File) (pieces int, bytes uint64, err error) {
	m := &fiemap{extentCount: atOnce}
	for pieces < Most {
		m.length = ^uint64(0) - m.start
		if err := call(f, "FS_IOC_FIEMAP", fiemapCall, unsafe.Pointer(m)); err != nil {
			return 0, 0, err
		}
		var end uint64
		for _, e := range m.extents[:min(int(m.mapped), atOnce)] {
			pieces, bytes, end = pieces+1, bytes+e.length, e.logical+e.length
			if e.flags&lastExtent != 0 {
				return pieces, bytes, nil
			}
		}
		if end <= m.start {
			break
		}
		m.start = end
	}
	return pieces, bytes, nil
}

// record is struct fsmap.
type record struct {
	device, flags                   uint32
	physical, owner, offset, length uint64
	reserved                        [3]uint64
}

// perCall is how many records one call brings: 64 KiB of them.
const perCall = 1024

// head is struct fsmap_head with its records.
type head struct {
	iflags, oflags, count, entries uint32
	reserved                       [6]uint64
	low, high                      record
	records                        [perCall]record
}

// Of struct fsmap: who owns a record that is free, and what says that the owner
// is no inode, and that it is the last one.
const (
	ownerFree    = 1 // FMR_OWN_FREE
	specialOwner = 0x10
	lastRecord   = 0x20
)

// A Space is what is free on a volume.
type Space struct {
	Bytes   uint64
	Pieces  int
	Large   uint64 // bytes of it in pieces of a MiB and more
	Partial bool   // only the first part of the volume was looked at
}

// Free looks at the map of the volume that f lies on, but not at more than limit
// records of it, nor after the end of ctx. It needs CAP_SYS_ADMIN to see who owns
// what.
func Free(ctx context.Context, f *os.File, limit int) (s Space, err error) {
	h := &head{count: perCall}
	h.high = record{device: ^uint32(0), flags: ^uint32(0), physical: ^uint64(0), owner: ^uint64(0), offset: ^uint64(0)}
	for seen := 0; ; {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		if err := call(f, "FS_IOC_GETFSMAP", fsmapCall, unsafe.Pointer(h)); err != nil {
			return s, err
		}
		for _, r := range h.records[:min(int(h.entries), perCall)] {
			s.add(r)
		}
		seen += int(h.entries)
		if h.entries == 0 || h.records[h.entries-1].flags&lastRecord != 0 {
			return s, nil
		}
		if seen >= limit {
			s.Partial = true
			return s, nil
		}
		h.low = h.records[h.entries-1] // the kernel goes on behind it
	}
}

func (s *Space) add(r record) {
	if r.flags&specialOwner == 0 || r.owner != ownerFree {
		return
	}
	s.Bytes += r.length
	s.Pieces++
	if r.length >= 1<<20 {
		s.Large += r.length
	}
}

func call(f *os.File, name string, request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
	runtime.KeepAlive(f)
	if errno != 0 {
		return &fs.PathError{Op: name, Path: f.Name(), Err: errno}
	}
	return nil
}
