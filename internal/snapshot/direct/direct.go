// Package direct reads a snapshot whose files are the live ones for the most
// part: names and attributes come from whoever holds the snapshot, here or in
// another process; content comes straight from the live file, and from the
// holder only where that has begun to change. It knows how a reader can tell the
// one from the other, and how the two talk over a socket; what a snapshot is made
// of it does not know.
//
// # Why what is read is right
//
// The holder has a flag for each file, in memory that it shares with the reader.
// It sets the flag before it saves the first original of the file, gives it up,
// or does anything else after which somebody is let change the file. The reader
// reads the live file, and looks at the flag after that. Not set, nobody had been
// let change the file when the reading ended. Set, what was read is thrown away,
// and the holder is asked for it, which has the original or makes sure that there
// was no change.
//
// What was changed in a way that makes no event, so that nobody had to be let,
// shows in the times of the file or its size. They are compared after the last
// byte. If they have moved, the holder knows whether that was announced: it looks
// at them, too, before it lets the first one change the file, because from then on
// they tell nothing any more.
//
// When the holder dies, everybody is let change everything, and no flag is set.
// Whatever is not in memory by then fails; what was read says nothing, and the Err
// of the snapshot, which is asked after the last byte, says so.
package direct

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"

	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/flagfile"
	"stillpoint/internal/sys/inode"
)

// A Holder has a snapshot. Its methods may be called from several goroutines.
// They are described at snapshot.Reader and snapshot.Content.
type Holder interface {
	Top() (snapshot.Item, error)
	Lookup(dir uint64, name string) (snapshot.Item, error)
	List(dir uint64) (snapshot.Listing, error)
	Describe(numbers []uint64) ([]snapshot.Item, error)

	// ReadAt fills p, which lies within the file.
	ReadAt(number uint64, p []byte, offset int64) (int, error)
	Next(number uint64, offset int64, hole bool) (int64, error)

	// Verify is nil when what was read of the live file before its flag was
	// set was its content of the instant.
	Verify(number uint64) error
}

// Live is where live files are read.
type Live struct {
	Mount *os.File       // in a mount whose files make no events
	Flags *flagfile.File // by inode number
}

// A Reader is a snapshot.Reader.
type Reader struct {
	Holder
	live Live
	end  func() error
}

// New makes a Reader. It takes the mount over; end is called at the end.
func New(h Holder, l Live, end func() error) *Reader { return &Reader{h, l, end} }

// Close ends the reading. No Content may be opened after it.
func (r *Reader) Close() error { return errors.Join(r.live.Mount.Close(), r.end()) }

// Open opens a file. Where the live one cannot be opened, all is asked of the
// holder, which knows why.
func (r *Reader) Open(i snapshot.Item) (snapshot.Content, error) {
	if i.Info.Kind != file.Regular {
		return nil, syscall.EINVAL
	}
	c := &content{r: r, number: i.Info.Inode, item: i, fd: -1}
	h, ok := inode.Unpack(i.Handle)
	if ok && i.Info.Size > 0 && !r.live.Flags.Has(c.number) {
		// O_NONBLOCK: a lease is not waited for.
		fd, err := inode.Open(int(r.live.Mount.Fd()), h, syscall.O_RDONLY|syscall.O_NOATIME|syscall.O_LARGEFILE|syscall.O_NONBLOCK)
		if err == nil {
			c.fd = fd
		}
	}
	return c, nil
}

// A content is one open file.
type content struct {
	r      *Reader
	number uint64
	item   snapshot.Item
	fd     int         // of the live file; -1 without
	used   atomic.Bool // something was read from there
}

// untouched tells whether all that was read from the live file up to now is of
// the instant, as far as events tell.
func (c *content) untouched() bool { return c.fd >= 0 && !c.r.live.Flags.Has(c.number) }

// ReadAt reads like io.ReaderAt.
func (c *content) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, syscall.EINVAL
	}
	left := c.item.Info.Size - offset
	if left <= 0 {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > left {
		p, end = p[:left], io.EOF
	}
	for n := 0; n < len(p); {
		got, err := c.readSome(p[n:], offset+int64(n))
		if err != nil {
			return n, err
		}
		n += got
	}
	return len(p), end
}

// readSome reads at least a byte. What the live file does not give, because it
// fails or is shorter by now, the holder says.
func (c *content) readSome(p []byte, offset int64) (int, error) {
	if c.untouched() {
		n, err := file.ReadAt(c.fd, p, offset)
		if err == nil && n > 0 && c.untouched() {
			c.used.Store(true)
			return n, nil
		}
	}
	n, err := c.r.ReadAt(c.number, p[:min(len(p), most)], offset)
	if err == nil && n <= 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Next finds holes and data.
func (c *content) Next(offset int64, hole bool) (int64, error) {
	size := c.item.Info.Size
	if offset < 0 || offset >= size {
		return 0, syscall.ENXIO
	}
	if !c.untouched() {
		return c.r.Next(c.number, offset, hole)
	}
	next := file.NextData
	if hole {
		next = file.NextHole
	}
	at, err := next(c.fd, offset)
	if err != nil && !errors.Is(err, syscall.ENXIO) || !c.untouched() {
		return c.r.Next(c.number, offset, hole)
	}
	c.used.Store(true)
	switch {
	case err != nil, at >= size && !hole:
		return 0, syscall.ENXIO
	}
	return min(at, size), nil
}

// Verify compares the times of the live file with those of the instant. As long
// as they are the same nothing can have happened, whatever the flag says.
func (c *content) Verify() error {
	if !c.used.Load() {
		return nil // the holder has verified it
	}
	var st syscall.Stat_t
	err := syscall.Fstat(c.fd, &st)
	i := &c.item.Info
	if err == nil && st.Size == i.Size && st.Mtim == timespec(i.Modified) && st.Ctim == timespec(i.Changed) {
		return nil
	}
	return c.r.Verify(c.number)
}

// Close closes the live file.
func (c *content) Close() error {
	if c.fd < 0 {
		return nil
	}
	return file.Close(c.fd)
}

var _ snapshot.Reader = (*Reader)(nil)
