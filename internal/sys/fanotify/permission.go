package fanotify

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Permission group is asked before files are opened and before their content
// is accessed. Who does so waits until the event is answered: what is watched
// is only as alive as the one who reads the group. All methods may be called
// from several goroutines.
//
// Content events (FAN_PRE_ACCESS, Linux 6.14) come for all that reads, writes,
// truncates or maps a file, before the file system is entered, with the range
// but without saying which of these it is. Whether a file can have them is
// decided when it is opened: an open file that is older than the first Watch
// never has any, except when it is truncated. One that was opened under any
// group has them under each later one.
type Permission struct {
	fd   int
	wake int // an eventfd, readable from Close on

	waiters waiters

	use    sync.Mutex // held for moments
	users  int        // who is about fd; the last one closes it
	over   bool
	left   chan struct{} // closed when he begins with that
	closed error         // what came of it
	gone   chan struct{} // closed then

	room  *room         // for events that are read and not answered
	ended chan struct{} // closed by Close
	once  sync.Once
}

// Of the mask on a file system: idle is what makes files reportable that are
// opened meanwhile, but is itself ignored and never costs an event; armed is
// what is added to have events. A file that is opened under FAN_ACCESS_PERM
// gets all permission hooks (fsnotify_open_perm_and_set_mode).
const (
	idle  = unix.FAN_ACCESS_PERM
	armed = unix.FAN_PRE_ACCESS | unix.FAN_OPEN_PERM
)

// Open makes a group. It needs CAP_SYS_ADMIN. The descriptors that come with
// events are for reading, also where the one who waits may not read, and leave
// no access time. A queue without limit is a must: of what does not fit into
// one, the kernel allows everything without asking. It can be no longer than
// there are threads that wait.
func Open() (*Permission, error) {
	const (
		flags = unix.FAN_CLASS_PRE_CONTENT | unix.FAN_CLOEXEC | unix.FAN_NONBLOCK |
			unix.FAN_UNLIMITED_QUEUE | unix.FAN_UNLIMITED_MARKS | unix.FAN_REPORT_TID | unix.FAN_REPORT_FD_ERROR
		events = unix.O_RDONLY | unix.O_LARGEFILE | unix.O_CLOEXEC | unix.O_NOATIME
	)
	fd, err := unix.FanotifyInit(flags, events)
	if err != nil {
		return nil, failed("fanotify_init", "permission events", err)
	}
	return adopt(fd)
}

// Adopt takes over a group that another process made with Open and passed on,
// as File gives it. Files opened while nobody had the group open would be
// lost to it; so one process can keep it while another is replaced.
func Adopt(group *os.File) (*Permission, error) {
	fd, err := unix.FcntlInt(group.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	runtime.KeepAlive(group)
	if err != nil {
		return nil, failed("fcntl F_DUPFD_CLOEXEC", "fanotify", err)
	}
	return adopt(fd)
}

func adopt(fd int) (*Permission, error) {
	room, err := theRoom()
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, failed("eventfd", "fanotify", err)
	}
	return &Permission{fd: fd, wake: wake, room: room, ended: make(chan struct{}), left: make(chan struct{}), gone: make(chan struct{})}, nil
}

// File returns a duplicate of the group's descriptor, to be passed on to a
// process that takes it over or keeps it. As long as any process has one open,
// those who wait go on waiting. It must not be inherited by a process that
// itself touches what is watched without reading the group: it would wait for
// itself.
func (p *Permission) File() (*os.File, error) {
	var dup int
	err := p.using(func() (err error) {
		dup, err = unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 3)
		return err
	})
	if err != nil {
		return nil, failed("fcntl F_DUPFD_CLOEXEC", "fanotify", err)
	}
	return os.NewFile(uintptr(dup), "fanotify"), nil
}

// using runs f while the group cannot be closed.
func (p *Permission) using(f func() error) error {
	p.use.Lock()
	over := p.over
	if !over {
		p.users++
	}
	p.use.Unlock()
	if over {
		return os.ErrClosed
	}
	defer p.leave()
	return f()
}

// answering is using for who gives an answer, which is of use as long as somebody
// else still has the group.
func (p *Permission) answering(f func() error) error {
	p.use.Lock()
	gone := p.over && p.users == 0
	if !gone {
		p.users++
	}
	p.use.Unlock()
	if gone {
		return os.ErrClosed
	}
	defer p.leave()
	return f()
}

// leave closes the group if it is over and nobody uses it.
func (p *Permission) leave() {
	p.use.Lock()
	p.users--
	last := p.users == 0 && p.over // from then on nobody else begins
	p.use.Unlock()
	if !last {
		return
	}
	close(p.left)
	p.closed = errors.Join(p.waiters.close(), unix.Close(p.fd), unix.Close(p.wake))
	close(p.gone)
}

// endTime is how long Close waits for those who read the group, or answer. They
// are done at once, unless the kernel keeps them.
const endTime = 500 * time.Millisecond

// kernelTime is how long Close then waits for the kernel.
const kernelTime = 10 * time.Second

// Close ends the group: everyone who waits is let go on, unless another
// process has the group open; reads end with os.ErrClosed. Descriptors of
// events that were read and not answered stay open until Allow is called. It
// may be called twice. When somebody does not come back from the kernel, Close
// fails, and he ends the group when he does.
func (p *Permission) Close() (err error) {
	p.once.Do(func() { err = p.end() })
	return err
}

func (p *Permission) end() error {
	close(p.ended)
	// Those who poll see this for as long as they look, since nobody reads it.
	_, werr := unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	p.use.Lock()
	p.over = true
	p.users++
	p.use.Unlock()
	p.leave()
	select {
	case <-p.left:
	case <-time.After(endTime):
		return errors.Join(werr, failed("close", "fanotify", errInUse))
	}
	// The last one closes the group. Everybody has been let go when the kernel then
	// waits until nobody walks its marks any more, which takes its time on a host with
	// much to do (fsnotify_destroy_group() in fs/notify/group.c).
	select {
	case <-p.gone:
		return errors.Join(werr, p.closed)
	case <-time.After(kernelTime):
		return errors.Join(werr, failed("close", "fanotify", errInUse))
	}
}

var errInUse = errors.New("somebody who uses the group does not come back from the kernel")

// Able tells why this kernel has no content events, or why this process may
// not have them; nil if it can.
func Able() error {
	fd, err := unix.MemfdCreate("probe", unix.MFD_CLOEXEC)
	if err != nil {
		return failed("memfd_create", "probe", err)
	}
	f := os.NewFile(uintptr(fd), "memory")
	defer f.Close()
	// tmpfs does not allow the events; a kernel that does not know them says
	// EINVAL before it looks at the file system (do_fanotify_mark).
	if err := AbleOn(f); !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return nil
}

// AbleOn tells why there can be no content events on the file system of f; nil
// if there can. It marks the inode of f for a moment, which must be a
// directory, or a file that nobody else has open.
func AbleOn(f *os.File) error {
	p, err := Open()
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("permission events need CAP_SYS_ADMIN: %w", err)
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("the kernel is built without permission events (CONFIG_FANOTIFY_ACCESS_PERMISSIONS): %w", err)
	case err != nil:
		return err
	}
	defer p.Close()
	switch err := p.mark(f, unix.FAN_MARK_ADD, unix.FAN_PRE_ACCESS); {
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("the kernel knows no events before content is accessed, which came with Linux 6.14: %w", err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("the file system allows no events before content is accessed (ext4, XFS and btrfs do): %w", err)
	default:
		return err
	}
}

func failed(call, object string, err error) error {
	if errors.Is(err, os.ErrClosed) {
		return err
	}
	return &fs.PathError{Op: call, Path: object, Err: err}
}
