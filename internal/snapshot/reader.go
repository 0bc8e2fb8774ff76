package snapshot

import (
	"context"
	"io"
	"net"

	"stillpoint/internal/sys/file"
)

// A Readable is a Snapshot that can be read without its Root.
type Readable interface {
	Snapshot

	// Reader begins to read. It fails with errors.ErrUnsupported where only
	// others of the same provider can be read so, and never because the
	// snapshot is lost, which reading says. The Reader must be closed; what
	// is read after the release is the error of Err.
	Reader(ctx context.Context) (Reader, error)
}

// A Lender is a Readable that another process can read, too.
type Lender interface {
	Readable

	// Lend answers a reader at the other end of a Unix socket (package
	// direct) and takes the socket over. It returns when the reader has
	// closed it, or the snapshot is released.
	Lend(conn *net.UnixConn) error
}

// A Reader shows what is in a Snapshot by inode number. It may be used by
// several goroutines. An errno in its errors is what a system call on Root
// would have said.
type Reader interface {
	// Top is the root of the volume. Its name is empty.
	Top() (Item, error)

	// Lookup finds a name in a directory. It fails with ENOENT where there
	// is none.
	Lookup(dir uint64, name string) (Item, error)

	// List returns all of a directory, in the order of names.
	List(dir uint64) (Listing, error)

	// Describe returns the inodes of some numbers, in that order, without
	// their names.
	Describe(numbers []uint64) ([]Item, error)

	// Open opens the content of a regular file, which List, Lookup or
	// Describe has returned.
	Open(i Item) (Content, error)

	Close() error
}

// A Content is an open file of a Reader. It may be used by several goroutines.
type Content interface {
	io.ReaderAt

	// Next returns where the first hole, or the first data, at or after
	// offset begins; the end of the file counts as a hole, and ENXIO says
	// that there is no data, or that offset is not in the file.
	Next(offset int64, hole bool) (int64, error)

	// Verify is asked after the last byte: unless it is nil, what was read
	// may be of another moment.
	Verify() error

	Close() error
}

// A Listing is all of a directory: Items, or of a large one Names alone, which
// Describe tells more about.
type Listing struct {
	Items []Item
	Names []Name
}

// A Name is one of a large directory.
type Name struct {
	Name  string
	Kind  file.Kind
	Inode uint64
}

// An Item is an inode, under one of its names.
type Item struct {
	Name   string
	Info   file.Info // but for Mount, Automount and Flags
	Flags  uint32    // as FS_IOC_GETFLAGS tells them
	Target string    // of a symbolic link
	XAttrs []XAttr
	Handle string // what the Reader opens it by
}

// An XAttr is one extended attribute.
type XAttr struct{ Name, Value string }
