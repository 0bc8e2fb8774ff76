package fanotify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Kind is what someone is about to do.
type Kind uint8

// The kinds of events.
const (
	// Access is any access to the content of an open file, or the truncation
	// of one by its path. It comes before the file system is entered.
	Access Kind = 1 + iota

	// OpenFile is an opening. It is the only event of an opening that
	// truncates, and comes when that has already begun to write (do_open):
	// whoever freezes the file system waits for its answer.
	OpenFile
)

// An Event is someone who waits for an answer, which Allow gives.
type Event struct {
	Kind Kind
	FD   int32 // the file, open for reading; accesses through it cause no events
	TID  int32 // the thread that waits; 0 if it is not in our process namespace

	// The range that Access concerns, in whole pages, as the caller gave it:
	// a truncation goes on to the end of the file, and so do some kinds of
	// fallocate and clone; an appending write goes elsewhere.
	Offset, Count uint64
}

// A Buffer is what Read needs. It belongs to one goroutine at a time.
type Buffer struct {
	raw    []byte
	events []Event
}

var native = binary.NativeEndian

// everything is the range of an access whose range is not known.
const everything = 1<<63 - 1

// The sizes of what the kernel writes (linux/fanotify.h).
const (
	metadataSize = 24 // struct fanotify_event_metadata
	rangeSize    = 24 // struct fanotify_event_info_range
)

// NewBuffer makes a Buffer for at least n events of one Read. They are one after the
// other, so small ones let several goroutines share the work.
func NewBuffer(n int) *Buffer {
	n = max(n, 1)
	size := n * (metadataSize + rangeSize)
	return &Buffer{raw: make([]byte, size), events: make([]Event, 0, size/metadataSize)}
}

// Denied is the error of a Read at which the kernel could make no descriptor
// for an event: it has denied the access that it was for.
type Denied struct{ Err error }

func (e *Denied) Error() string { return fmt.Sprintf("an access was denied: %v", e.Err) }

// Unwrap returns the cause.
func (e *Denied) Unwrap() error { return e.Err }

// Read waits for events and returns some. They are valid until the next Read
// with the same buffer. It blocks its thread; any number of goroutines may
// read. While more events are unanswered, of all groups of this process, than
// half the descriptors that it may have, Read waits for a moment and then fails
// with ErrNoRoom. After that and after a Denied it can be called again.
func (p *Permission) Read(b *Buffer) ([]Event, error) {
	for {
		n, err := p.tryRead(b)
		switch {
		case err == nil:
			return b.parse(p, n)
		case errors.Is(err, unix.EAGAIN):
			if err := p.using(p.wait); err != nil {
				return nil, err
			}
		case errors.Is(err, os.ErrClosed), errors.Is(err, ErrNoRoom):
			return nil, err
		default:
			return nil, &Denied{failed("read", "fanotify", err)}
		}
	}
}

// tryRead reads what is there.
func (p *Permission) tryRead(b *Buffer) (n int, err error) {
	// The kernel fills the buffer, and the shortest events have no range.
	most := cap(b.events)
	if err := p.room.take(most, p.ended); err != nil {
		return 0, err
	}
	err = p.using(func() error {
		for {
			n, err = unix.Read(p.fd, b.raw)
			if err != unix.EINTR {
				return err
			}
		}
	})
	if err != nil {
		p.room.give(most)
	}
	return n, err
}

// parse turns n bytes that were read into events. What is not used of the room
// that was taken for them is given back.
func (b *Buffer) parse(p *Permission, n int) ([]Event, error) {
	var denied error
	b.events = b.events[:0]
	for rest := b.raw[:n]; len(rest) > 0; {
		size := int(native.Uint32(rest))
		if len(rest) < metadataSize || rest[4] != unix.FANOTIFY_METADATA_VERSION || size < metadataSize || size > len(rest) {
			p.room.give(cap(b.events) - len(b.events))
			return b.events, fmt.Errorf("the kernel's events have an unknown form (version %d)", rest[4])
		}
		e := Event{
			Kind: OpenFile,
			FD:   int32(native.Uint32(rest[16:])),
			TID:  int32(native.Uint32(rest[20:])),
		}
		if native.Uint64(rest[8:])&unix.FAN_PRE_ACCESS != 0 {
			e.Kind, e.Count = Access, everything
		}
		for info := rest[native.Uint16(rest[6:]):size]; len(info) >= 4; {
			length := int(native.Uint16(info[2:]))
			if length < 4 || length > len(info) {
				break
			}
			if info[0] == unix.FAN_EVENT_INFO_TYPE_RANGE && length >= rangeSize {
				e.Offset, e.Count = native.Uint64(info[8:]), native.Uint64(info[16:])
			}
			info = info[length:]
		}
		if e.FD >= 0 {
			b.events = append(b.events, e)
		} else {
			denied = &Denied{unix.Errno(-e.FD)}
		}
		rest = rest[size:]
	}
	p.room.give(cap(b.events) - len(b.events))
	return b.events, denied
}

// Allow lets the one who waits go on, and closes the event's descriptor: it is
// Answer and Drop.
func (p *Permission) Allow(e Event) error {
	defer p.Drop(e)
	return p.Answer(e)
}

// Answer lets the one who waits go on. It never waits itself. The descriptor
// stays, so that nobody else's gets its number, which is all that an answer
// tells events apart by. Drop must follow.
func (p *Permission) Answer(e Event) error {
	if err := p.answer(e.FD); err != nil {
		return failed("write", "fanotify", err)
	}
	return nil
}

// Drop closes the descriptor of an event that is answered. It can be the last
// one of a deleted file: while the file system is frozen it then waits for the
// thaw, unless something else keeps the file.
func (p *Permission) Drop(e Event) {
	unix.Close(int(e.FD))
	p.room.give(1)
}

// Unread is how many events wait to be read.
func (p *Permission) Unread() (n int, err error) {
	err = p.using(func() error {
		size, err := unix.IoctlGetUint32(p.fd, unix.TIOCINQ) // FIONREAD, which counts events as those without a range
		n = int(size) / metadataSize
		return err
	})
	if err != nil {
		return 0, failed("ioctl FIONREAD", "fanotify", err)
	}
	return n, nil
}

// AllowLost answers all events that another process read from this group with
// descriptors below limit, and could not answer before it died. An event is
// known by the number of its descriptor alone, in whichever process. It is
// called before the first Read.
func (p *Permission) AllowLost(limit int) error {
	for fd := range limit {
		if err := p.answer(int32(fd)); err != nil {
			return failed("write", "fanotify", err)
		}
	}
	return nil
}

func (p *Permission) answer(fd int32) error {
	var response [8]byte // struct fanotify_response
	native.PutUint32(response[:], uint32(fd))
	native.PutUint32(response[4:], unix.FAN_ALLOW)
	return p.answering(func() error {
		for {
			_, err := unix.Write(p.fd, response[:])
			switch err {
			case unix.EINTR:
			case unix.ENOENT: // the one who waited was killed
				return nil
			default:
				return err
			}
		}
	})
}
