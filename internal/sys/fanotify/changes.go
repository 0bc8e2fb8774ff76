package fanotify

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"stillpoint/internal/sys/inode"
)

// A Mask says what a Changes group tells, and what a Change was; equal changes
// that nobody has read yet become one, whose mask has several bits.
type Mask uint64

// The changes. Those of directories are told, too.
const (
	Created      Mask = unix.FAN_CREATE
	Deleted      Mask = unix.FAN_DELETE
	Renamed      Mask = unix.FAN_RENAME // both names in one event
	Attributes   Mask = unix.FAN_ATTRIB // also the number of links; not inode flags (FS_IOC_SETFLAGS)
	Modified     Mask = unix.FAN_MODIFY // not by asynchronous I/O, nor by a store to a mapping
	WriterClosed Mask = unix.FAN_CLOSE_WRITE
	Opened       Mask = unix.FAN_OPEN

	// OfDirectory comes with those others that concern a directory itself, or
	// the name of one.
	OfDirectory Mask = unix.FAN_ONDIR

	// Names are all changes of what directories hold.
	Names = Created | Deleted | Renamed
)

// A Change is what an event tells. Where something has no part in it, it is
// zero. The names are valid until the function returns that was called with
// them.
type Change struct {
	Mask    Mask
	Dir     inode.Handle // the directory of Name; of a change of a directory itself that one
	Name    []byte       // the name that was made, removed, changed, or renamed
	NewDir  inode.Handle // of Renamed: where it went to
	NewName []byte
	Target  inode.Handle // what the name stands for
}

// ErrLost is the error of a Read when the kernel could not tell everything:
// it had no memory.
var ErrLost = errors.New("changes were lost")

// Changes is a group that tells what was changed on one file system, through
// whichever mount, in no useful order and without end: nothing is lost as long
// as the kernel has memory. An event is in the queue before the call returns
// that caused it, and with a change that a freeze has to wait for before the
// freeze. Its methods may be called from several goroutines.
type Changes struct {
	fs string // for messages

	mu   sync.Mutex
	fd   int // -1: closed
	root int // a descriptor on the file system
	buf  []byte
}

// NewChanges begins to tell changes of the file system that root lies on.
func NewChanges(root *os.File, mask Mask) (*Changes, error) {
	dup, err := unix.FcntlInt(root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	runtime.KeepAlive(root)
	if err != nil {
		return nil, failed("dup", root.Name(), err)
	}
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_DFID_NAME_TARGET|
		unix.FAN_UNLIMITED_QUEUE|unix.FAN_UNLIMITED_MARKS|unix.FAN_NONBLOCK|unix.FAN_CLOEXEC, 0)
	if err != nil {
		unix.Close(dup)
		return nil, failed("fanotify_init", root.Name(), err)
	}
	c := &Changes{fs: root.Name(), fd: fd, root: dup, buf: make([]byte, 64<<10)}
	if err := c.Add(mask); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Add lets it tell more changes, those that begin from now on.
func (c *Changes) Add(mask Mask) error {
	return c.mark(unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, mask|OfDirectory)
}

// Remove ends what Add began. Events that are in the queue stay there.
func (c *Changes) Remove(mask Mask) error {
	return c.mark(unix.FAN_MARK_REMOVE|unix.FAN_MARK_FILESYSTEM, mask)
}

// Silence ends events of opening for what is done through the mount that the
// group was made with.
func (c *Changes) Silence() error {
	return c.mark(unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT|unix.FAN_MARK_IGNORE_SURV, Opened|OfDirectory)
}

func (c *Changes) mark(flags uint, mask Mask) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return failed("fanotify_mark", c.fs, os.ErrClosed)
	}
	if err := unix.FanotifyMark(c.fd, flags, uint64(mask), c.root, ""); err != nil {
		return failed("fanotify_mark", c.fs, err)
	}
	return nil
}

// Read calls each for all events that are in the queue, and does not wait for
// more. each must not call c.
func (c *Changes) Read(each func(*Change)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return failed("read", c.fs, os.ErrClosed)
	}
	var lost error
	for {
		n, err := unix.Read(c.fd, c.buf)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return lost
		case err != nil:
			return failed("read", c.fs, err)
		case !parseChanges(c.buf[:n], each):
			lost = ErrLost
		}
	}
}

// Close ends the group. It may be called twice. It may take some milliseconds.
func (c *Changes) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	unix.Close(c.root)
	err := unix.Close(c.fd)
	c.fd, c.buf = -1, nil
	if err != nil {
		return failed("close", c.fs, err)
	}
	return nil
}

// parseChanges takes events apart, and tells whether they were whole. Each is
// a struct fanotify_event_metadata, followed by records that begin with a
// struct fanotify_event_info_header: 8 bits of type, 8 unused, 16 of length.
func parseChanges(events []byte, each func(*Change)) (whole bool) {
	whole = true
	var e Change
	for len(events) > 0 {
		if len(events) < unix.FAN_EVENT_METADATA_LEN || events[4] != unix.FANOTIFY_METADATA_VERSION {
			return false
		}
		size := int(native.Uint32(events))
		from := int(native.Uint16(events[6:]))
		if size < from || from < unix.FAN_EVENT_METADATA_LEN || size > len(events) {
			return false
		}
		e = Change{Mask: Mask(native.Uint64(events[8:]))}
		ok := e.Mask&unix.FAN_Q_OVERFLOW == 0 && e.parse(events[from:size])
		if ok {
			each(&e)
		}
		whole = whole && ok
		events = events[size:]
	}
	return whole
}

// parse reads the records of one event.
func (e *Change) parse(records []byte) bool {
	for len(records) > 0 {
		if len(records) < 4 {
			return false
		}
		length := int(native.Uint16(records[2:]))
		if length < 4 || length > len(records) {
			return false
		}
		handle, name, ok := parseRecord(records[4:length])
		switch records[0] {
		case unix.FAN_EVENT_INFO_TYPE_FID:
			e.Target = handle
		case unix.FAN_EVENT_INFO_TYPE_DFID, unix.FAN_EVENT_INFO_TYPE_DFID_NAME, unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME:
			e.Dir, e.Name = handle, name
		case unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME:
			e.NewDir, e.NewName = handle, name
		default:
			ok = true
		}
		if !ok {
			return false
		}
		records = records[length:]
	}
	// Of a change of a directory itself the name is "." and no child is told
	// (fanotify(7), FAN_REPORT_NAME).
	if e.Target.IsZero() && len(e.Name) == 1 && e.Name[0] == '.' {
		e.Name, e.Target = nil, e.Dir
	}
	return !e.Dir.IsZero() || !e.Target.IsZero()
}

// parseRecord reads what is in struct fanotify_event_info_fid: the file system
// in 64 bits, then a struct file_handle, then maybe a name up to a NUL.
func parseRecord(b []byte) (h inode.Handle, name []byte, ok bool) {
	const head = 16
	if len(b) < head {
		return h, nil, false
	}
	size := int(native.Uint32(b[8:]))
	if size > len(b)-head {
		return h, nil, false
	}
	h, ok = inode.New(int32(native.Uint32(b[12:])), b[head:head+size])
	name, _, _ = bytes.Cut(b[head+size:], []byte{0})
	return h, name, ok
}
