package tree

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// A Content is an open regular file of a source. Its methods may be called
// from several goroutines, Close once at the end.
type Content struct {
	fd    int
	at    livePath
	entry Entry // as it was found
}

// OpenFile opens the content of e, which Stat returned. It fails with
// file-changed when something else has the name now.
func (d *Dir) OpenFile(e Entry) (*Content, error) {
	at := livePath{d, e.Name}
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
	fd, err := w.folders.openQuietly(s.dir, s.name, s.opening(file.Read|file.Prompt))
	// A file server that holds a lease is asked to give it up, and without
	// O_NONBLOCK the kernel waits for that (fcntl(2): lease-break-time).
	if errors.Is(err, syscall.EAGAIN) {
		fd, err = w.folders.openQuietly(s.dir, s.name, s.opening(file.Read))
	}
	if err != nil {
		return nil, unopened(at, err)
	}
	c := &Content{fd: fd, at: at, entry: e}
	now, err := c.Stat()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if now.Type != File || now.Inode != e.Inode {
		err := problem.Newf(problem.FileChanged, at.String(), "another file has taken its place")
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// ReadAt reads like io.ReaderAt.
func (c *Content) ReadAt(p []byte, off int64) (int, error) {
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
// whether it was written meanwhile.
func (c *Content) Stat() (Entry, error) {
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
	flags, err := readFlags(c.fd)
	if err != nil {
		return 0, unreadAttribute(c.at, "inode flags", err)
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
			return nil, unread(c.at, err)
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
	hole, err = file.NextHole(c.fd, off)
	if err != nil {
		return 0, 0, err
	}
	if hole >= c.entry.Size {
		return c.entry.Size, c.entry.Size, nil
	}
	end, err = file.NextData(c.fd, hole)
	if errors.Is(err, syscall.ENXIO) {
		return hole, c.entry.Size, nil
	}
	return hole, min(end, c.entry.Size), err
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
	if err := file.Close(c.fd); err != nil {
		return unread(c.at, err)
	}
	return nil
}
