// Package view shows the files of an instant as a read-only file system: it
// serves FUSE from memory and from a Source. The file system is in nobody's
// tree of paths and is gone with the process.
//
// A file is known by its live inode number throughout, so nothing is remembered
// of what readers looked up, and no file is ever opened: the kernel is told
// that this needs no message. Since nothing changes, the kernel may keep names,
// attributes and content as long as it likes.
//
// What a reader does can harm nobody but the reader: requests are answered from
// what is there, and one that hangs in the Source keeps a goroutine, not the
// others. While the process is stopped, readers wait; those whose request was
// taken already cannot be killed until it goes on or ends.
//
// The package knows the protocol and what an index holds, and not where content
// comes from.
package view

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"stillpoint/internal/snapshot/cow/index"
	"stillpoint/internal/sys/fuse"
)

// A Source is what a view shows. Its methods are called from many goroutines
// at once, and what they return must not change while the view is open.
type Source interface {
	// Root is the number of the directory that the view begins with.
	Root() uint64

	// Inode returns a file by its number, nil where there is none.
	Inode(number uint64) *index.Inode

	// ReadAt reads like io.ReaderAt. The errno in its error reaches the
	// reader, EIO where there is none.
	ReadAt(number uint64, p []byte, offset int64) (int, error)

	// Seek returns where the first hole, or the first data, at or after
	// offset begins; the end of the file counts as a hole, and ENXIO says
	// that there is no data.
	Seek(number uint64, offset int64, hole bool) (int64, error)

	// Statfs describes the volume.
	Statfs() Statfs
}

// Statfs is what statfs(2) tells of a volume.
type Statfs struct {
	BlockSize               uint32
	Blocks, Free, Available uint64 // in blocks
	Files, FreeFiles        uint64
	NameMax                 uint32

	IOSize uint32 // what stat(2) tells of each file: what is good to read at once
}

// Options of a View.
type Options struct {
	Name string // what df shows as the device
}

// A View is a mounted file system.
type View struct {
	root   *os.File
	number uint32 // of the connection
	served chan struct{}

	close  sync.Once
	closed error
}

// readMost is how much one read may ask for: the most that Linux lets a FUSE
// server say by default (fs.fuse.max_pages_limit).
const readMost = 1 << 20

// pollName is a file that go-fuse has in every file system, for fuse.Poll.
const pollName = ".go-fuse-epoll-hack"

// Mount begins to show s. Where the kernel has no FUSE, or does not let us use
// it, the errno is that of the call.
func Mount(s Source, o Options) (*View, error) {
	device, err := fuse.Open()
	if err != nil {
		return nil, fmt.Errorf("mount a view: %w", err)
	}
	if o.Name == "" {
		o.Name = "stillpoint"
	}
	root, err := fuse.Mount(device, fuse.Options{Source: o.Name, Subtype: "stillpoint", MaxRead: readMost})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount a view: %w", err), os.NewFile(uintptr(device), "fuse").Close())
	}
	// The kernel has its first request, INIT, waiting on the device by now.
	server, err := gofuse.NewServer(newFileSystem(s), fmt.Sprintf("/dev/fd/%d", device), &gofuse.MountOptions{
		MaxWrite:                 readMost, // of reads, too
		MaxReadAhead:             readMost,
		MaxBackground:            16,   // reads ahead at once, each with a buffer
		ExplicitDataCacheControl: true, // the kernel need not compare mtimes
		EnableSymlinkCaching:     true,
		EnableAcl:                true, // the kernel checks them as it does live
		DisableSplice:            true, // content comes from memory
		Logger:                   log.New(io.Discard, "", 0),
	})
	if err != nil { // which has closed the device
		return nil, errors.Join(fmt.Errorf("mount a view: %w", err), root.Close())
	}
	v := &View{root: root, served: make(chan struct{})}
	go func() {
		server.Serve()
		close(v.served)
	}()
	if v.number, err = fuse.Number(root); err == nil {
		err = fuse.Poll(root, pollName)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount a view: %w", err), v.Close())
	}
	// Without it reading is slower and nothing else.
	_ = fuse.SetReadAhead(root, readAhead)
	return v, nil
}

const readAhead = 2 * readMost

// Root is the root of the file system: every process of root reaches it at
// /proc/PID/fd/N. It stays the view's.
func (v *View) Root() *os.File { return v.root }

// closeLimit is how long Close waits for a Source that does not return.
const closeLimit = 10 * time.Second

// Close ends the file system, also while files of it are open: whoever reads
// gets an error. When it returns, the Source is not used any more, unless it
// fails because the Source does not return from a call.
func (v *View) Close() error {
	v.close.Do(func() {
		// Closing the root would do where nothing is open.
		err := fuse.Abort(v.number)
		if errors.Is(err, os.ErrNotExist) {
			err = nil // ended already
		}
		v.closed = errors.Join(err, v.root.Close())
		select {
		case <-v.served:
		case <-time.After(closeLimit):
			v.closed = errors.Join(v.closed, errors.New("close a view: a read of it does not end"))
		}
	})
	return v.closed
}
