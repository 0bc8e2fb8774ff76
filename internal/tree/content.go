package tree

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/file"
)

// A Content is an open regular file of a source. Its methods may be called
// from several goroutines, Close once at the end.
type Content struct {
	fd     int
	direct snapshot.Content // in place of fd, unless nil
	flags  Flags            // of one that is read directly
	at     livePath
	entry  Entry // as it was found
}

// OpenFile opens the content of e, which Stat returned. It fails with
// file-changed when something else has the name now.
func (d *Dir) OpenFile(e Entry) (*Content, error) {
	at := livePath{d, e.Name}
	if p, err := d.directAt(e.Name); err != nil {
		return nil, unshown(at, err)
	} else if p != nil {
		return p.open(e, at)
	}
	s, err := d.spot(e.Name)
	if err != nil {
		return nil, unread(at, err)
	}
	defer s.give()
	return d.walk.openFile(e, s, at)
}

func (w *walk) openFile(e Entry, s spot, at livePath) (*Content, error) {
	if e.Type != File {
		return nil, problem.Newf(problem.FileUnreadable, at.String(), "a %s has no content", e.Type)
	}
	fd, err := w.openSeen(e, s)
	if err != nil {
		return nil, unopened(at, err)
	}
	return &Content{fd: fd, at: at, entry: e}, nil
}

// openSeen opens the file e, which was seen at the spot, to be read. Something
// else may have the name by now, and opening a device or a FIFO does something:
// a tape rewinds, a watchdog starts, a writer goes on. So its place is looked
// at, and then that very place is opened.
func (w *walk) openSeen(e Entry, s spot) (int, error) {
	place, err := w.folders.openQuietly(s.dir, s.name, s.opening(file.Place))
	if err != nil {
		return -1, err
	}
	defer file.Close(place)
	info, err := file.Stat(place, "", file.Itself)
	if err != nil {
		return -1, err
	}
	if info.Kind != file.Regular || info.Inode != e.Inode {
		return -1, errOtherFile
	}
	fd, err := w.folders.reopenQuietly(place)
	// A file server that holds a lease is asked to give it up, which takes it
	// some milliseconds. Without O_NONBLOCK the kernel would wait for up to 45 s
	// (fcntl(2), lease-break-time).
	for pause := time.Millisecond; errors.Is(err, syscall.EAGAIN) && pause <= leasePause; pause *= 2 {
		if w.waited.Add(int64(pause)) > int64(leasePatience) {
			break
		}
		time.Sleep(pause)
		fd, err = w.folders.reopenQuietly(place)
	}
	if errors.Is(err, syscall.EAGAIN) {
		return -1, errLeased
	}
	return fd, err
}

// Path is the live path.
func (c *Content) Path() string { return c.at.String() }

// Descriptor is that of a file that is read by one, and -1 of one that is read
// directly in a snapshot.
func (c *Content) Descriptor() int {
	if c.direct != nil {
		return -1
	}
	return c.fd
}

// How long is waited for leases: in doubling steps up to this one, which is a
// second for one file, and so long for all files of a source together.
const (
	leasePause    = 512 * time.Millisecond
	leasePatience = 20 * time.Second
)

// ReadAt reads like io.ReaderAt.
func (c *Content) ReadAt(p []byte, off int64) (int, error) {
	if c.direct != nil {
		n, err := c.direct.ReadAt(p, off)
		if err != nil && err != io.EOF {
			err = unshown(c.at, err)
		}
		return n, err
	}
	done := 0
	for done < len(p) {
		n, err := file.ReadAt(c.fd, p[done:], off+int64(done))
		if err != nil {
			return done, unread(c.at, err)
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

// Stat describes the file as it is now: Changed with the entry of before tells
// whether it was written meanwhile. Of a file that is read directly it fails
// where what was read is not of the snapshot.
func (c *Content) Stat() (Entry, error) {
	if c.direct != nil {
		if err := c.direct.Verify(); err != nil {
			return Entry{}, unshown(c.at, err)
		}
		return c.entry, nil
	}
	info, err := file.Stat(c.fd, "", file.Itself)
	if err != nil {
		return Entry{}, unread(c.at, err)
	}
	e, err := entryOf(c.entry.Name, info)
	if err != nil {
		return Entry{}, unread(c.at, err)
	}
	return e, nil
}

// Changed tells whether a file that is live changed between two looks.
func Changed(before, after Entry) bool {
	return before.Inode != after.Inode || before.Size != after.Size ||
		!before.Modified.Equal(after.Modified) || !before.Changed.Equal(after.Changed)
}

// Flags returns all flags, also those that Stat does not know; none where the
// file system has none.
func (c *Content) Flags() (Flags, error) {
	if c.direct != nil {
		return c.flags, nil
	}
	flags, err := readFlags(c.fd)
	if err != nil {
		return 0, problem.Newf(problem.AttributeUnread, c.at.String(), "inode flags: %w", said(err))
	}
	return flags, nil
}

// holesMax is how many holes of one file are told apart.
const holesMax = 4096

// Holes returns the holes in order, the largest ones if there are very many.
// A file that occupies all its blocks is not asked. Allocated blocks that were
// never written count as holes: they read the same.
func (c *Content) Holes() ([]Range, error) {
	if c.entry.Blocks*512 >= c.entry.Size {
		return nil, nil
	}
	var holes []Range
	for off := int64(0); off < c.entry.Size; {
		hole, end, err := c.nextHole(off)
		switch {
		case errors.Is(err, syscall.EINVAL) && off == 0: // not told apart here
			return nil, nil
		case errors.Is(err, syscall.ENXIO): // it became shorter meanwhile
			return largest(holes), nil
		case err != nil:
			return nil, unshown(c.at, err)
		}
		if hole < end {
			holes = append(holes, Range{Offset: hole, Length: end - hole})
		}
		if len(holes) == 2*holesMax {
			holes = largest(holes)
		}
		off = end
	}
	return largest(holes), nil
}

// nextHole returns the first hole after off, an empty one when there is none
// any more.
func (c *Content) nextHole(off int64) (hole, end int64, err error) {
	hole, err = c.next(off, true)
	if err != nil {
		return 0, 0, err
	}
	if hole >= c.entry.Size {
		return c.entry.Size, c.entry.Size, nil
	}
	end, err = c.next(hole, false)
	if errors.Is(err, syscall.ENXIO) {
		return hole, c.entry.Size, nil
	}
	return hole, min(end, c.entry.Size), err
}

// next finds the next hole, or the next data.
func (c *Content) next(off int64, hole bool) (int64, error) {
	switch {
	case c.direct != nil:
		return c.direct.Next(off, hole)
	case hole:
		return file.NextHole(c.fd, off)
	}
	return file.NextData(c.fd, off)
}

// largest keeps the largest holes, in the order of the file.
func largest(holes []Range) []Range {
	if len(holes) <= holesMax {
		return holes
	}
	slices.SortFunc(holes, func(a, b Range) int { return cmp.Compare(b.Length, a.Length) })
	holes = holes[:holesMax]
	slices.SortFunc(holes, func(a, b Range) int { return cmp.Compare(a.Offset, b.Offset) })
	return holes
}

// Close closes the file.
func (c *Content) Close() error {
	shut := func() error { return file.Close(c.fd) }
	if c.direct != nil {
		shut = c.direct.Close
	}
	if err := shut(); err != nil {
		return unread(c.at, err)
	}
	return nil
}
