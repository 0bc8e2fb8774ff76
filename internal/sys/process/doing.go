package process

import (
	"os"

	"golang.org/x/sys/unix"
)

// Doing is what a thread does to a file while it waits for permission.
type Doing int

// Whoever must not miss a change treats Unknown as WritesToEnd or, for an
// opening, as Truncates.
const (
	Unknown      Doing = iota // not known for sure
	Reads                     // changes nothing
	Writes                    // within the range of the event, or beyond the end of the file
	WritesToEnd               // from the event's offset to the end of the file
	Truncates                 // opens the file and throws its content away
	Opens                     // opens the file and leaves its content alone
	MapsPrivate               // maps the file, and can never change it that way
	MapsReadOnly              // maps it shared by a descriptor for reading: cannot be made writable later
	MapsShared                // maps it shared; may store into it at any time from now on, without an event
)

func (d Doing) String() string {
	names := [...]string{"unknown", "reads", "writes", "writes to end", "truncates", "opens", "maps private", "maps read-only", "maps shared"}
	if d < 0 || int(d) >= len(names) {
		return "unknown"
	}
	return names[d]
}

// A Question is what an event says: that a thread opens a file, or accesses a range of it,
// in whole pages; and which file it is.
type Question struct {
	Open          bool
	Offset, Count uint64
	Dev, Ino      uint64 // as stat says
}

// A File is what a descriptor of some thread stands for.
type File struct {
	Dev, Ino uint64
	Mode     uint32 // with the type, as stat says
}

// Files are the descriptors of a thread.
type Files interface {
	File(fd int) (File, error)
	Flags(fd int) (int, error) // those of open(2)
}

// DoingOf tells what the thread that waits for permission is doing. It costs
// 6 µs, and some more for each descriptor that must be looked at.
func DoingOf(tid int, q Question) (Doing, error) {
	c, err := CallOf(tid)
	if err != nil {
		return Unknown, err
	}
	if q.Open {
		c = c.plain(tid)
	}
	return Classify(c, q, thread(tid)), nil
}

// A thread has descriptors.
type thread int

func (t thread) File(fd int) (File, error) { return FileOf(int(t), fd) }
func (t thread) Flags(fd int) (int, error) { return FlagsOf(int(t), fd) }

// Classify tells what a thread with such files does that waits in the call c
// for permission q.
//
// The number of the call alone is no proof that a thread only reads: after a
// call, with its number still there, the kernel may go on in the same thread
// with work for io_uring, such as a write that waited for something else. So
// that a thread reads, or maps, is taken for sure only if the descriptor is the
// event's file and the range fits, as far as registers show it. That a write
// is within the event's range holds for all such work, since io_uring leaves
// truncate and fallocate to threads of its own (REQ_F_FORCE_ASYNC), which no
// number is believed of.
//
// A 32-bit call made by a 64-bit program has numbers that mean something else;
// none of those that are taken for a read or a harmless opening has events.
func Classify(c Call, q Question, files Files) Doing {
	switch {
	case c.abi() != nativeABI:
		return Unknown
	case q.Open:
		return classifyOpen(c)
	}
	x := access{c, q, files}
	switch c.Number {
	case sysRead:
		return x.reads(0, x.fitsCount(c.Args[2]))
	case sysPread64:
		return x.reads(0, x.fits(c.Args[3], c.Args[2]))
	case sysReadv:
		return x.reads(0, true)
	case sysPreadv, sysPreadv2:
		here := c.Number == sysPreadv2 && int64(c.Args[3]) == -1 // at the file's own position
		return x.reads(0, here || pageDown(c.Args[3]) == q.Offset)
	case sysExecve, sysExecveat:
		return Reads
	case sysMmap:
		return x.maps()
	case sysSendfile:
		return x.copies(1, 0)
	case sysSplice, sysCopyFileRange:
		return x.copies(0, 2)
	case sysWrite, sysPwrite64, sysWritev, sysPwritev, sysPwritev2, sysIoSubmit:
		return Writes
	case sysFallocate:
		if c.Args[1]&(unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) != 0 {
			return WritesToEnd
		}
		return Writes
	case sysMadvise:
		if c.Args[2] == unix.MADV_REMOVE {
			return Writes
		}
	case sysTruncate, sysFtruncate:
		return WritesToEnd
	case sysIoctl:
		return x.ioctl()
	}
	return Unknown
}

func classifyOpen(c Call) Doing {
	var flags uint64
	switch c.Number {
	case sysOpen:
		flags = c.Args[1]
	case sysOpenat, sysOpenByHandleAt:
		flags = c.Args[2]
	case sysCreat:
		return Truncates
	case sysExecve, sysExecveat:
		return Opens
	default:
		return Unknown // also an openat2 whose flags cannot be had
	}
	if flags&unix.O_TRUNC != 0 {
		return Truncates
	}
	return Opens
}

// An access is a call that has caused an event on the content of a file.
type access struct {
	Call
	q     Question
	files Files
}

// is tells whether an argument is a descriptor of the event's file. When it
// cannot be told, it neither is nor is not.
func (x access) is(arg int) (is, isNot bool) {
	f, err := x.files.File(x.descriptor(arg))
	if err != nil {
		return false, false
	}
	is = f.Dev == x.q.Dev && f.Ino == x.q.Ino
	return is, !is
}

func (x access) descriptor(arg int) int { return int(int32(x.Args[arg])) }

func (x access) reads(arg int, fits bool) Doing {
	if fits {
		if is, _ := x.is(arg); is {
			return Reads
		}
	}
	return Unknown
}

// copies is for calls that read one file and write another one.
func (x access) copies(from, to int) Doing {
	if is, _ := x.is(from); is {
		if _, isNot := x.is(to); isNot {
			return Reads
		}
	}
	return Writes
}

func (x access) maps() Doing {
	if !x.fits(x.Args[5], x.Args[1]) {
		return Unknown
	}
	if is, _ := x.is(4); !is {
		return Unknown
	}
	if x.Args[3]&unix.MAP_TYPE == unix.MAP_PRIVATE {
		return MapsPrivate
	}
	if flags, err := x.files.Flags(x.descriptor(4)); err == nil && flags&unix.O_ACCMODE == unix.O_RDONLY {
		return MapsReadOnly
	}
	return MapsShared
}

// Calls of ioctl (linux/fs.h).
const (
	fiClone       = 0x40049409 // FICLONE
	fiDedupeRange = 0xc0189436 // FIDEDUPERANGE
)

func (x access) ioctl() Doing {
	switch uint32(x.Args[1]) {
	case fiClone: // into the first descriptor, from the third
		if is, _ := x.is(2); is {
			if _, isNot := x.is(0); isNot {
				return Reads
			}
		}
	case fiDedupeRange: // shares what is equal already
		return x.reads(0, true)
	}
	return WritesToEnd
}

// fits tells whether the event's range is what the call asks for
// (fsnotify_pre_content).
func (x access) fits(offset, count uint64) bool {
	return x.q.Offset == pageDown(offset) && x.q.Count == pageUp(offset+count)-pageDown(offset)
}

// fitsCount is fits at an unknown offset.
func (x access) fitsCount(count uint64) bool {
	return x.q.Count >= pageUp(count) && x.q.Count <= pageUp(count)+pageSize()
}

func pageSize() uint64         { return uint64(os.Getpagesize()) }
func pageDown(n uint64) uint64 { return n &^ (pageSize() - 1) }
func pageUp(n uint64) uint64   { return pageDown(n + pageSize() - 1) }
