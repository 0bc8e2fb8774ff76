package fanotify

import (
	"errors"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Every file below takes an open descriptor, not one of O_PATH.

// Watch makes the files of a file system reportable that are opened from now
// on, through whichever mount, and has no events yet. The mark ends with the
// last unmount, without notice.
func (p *Permission) Watch(fs *os.File) error {
	// The ignore mask comes first, or there would be events in between.
	if err := p.mark(fs, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM|unix.FAN_MARK_IGNORE_SURV, idle); err != nil {
		return err
	}
	return p.mark(fs, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, idle)
}

// Arm lets the events of a watched file system come: those of accesses that
// begin after it returned. One that began before may yet be on its way to the
// file system.
func (p *Permission) Arm(fs *os.File) error {
	return p.mark(fs, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, armed)
}

// Disarm ends what Arm began. Events that are in the queue stay there.
func (p *Permission) Disarm(fs *os.File) error {
	return p.mark(fs, unix.FAN_MARK_REMOVE|unix.FAN_MARK_FILESYSTEM, armed)
}

// Unwatch takes the mark of a file system away. It is none if there is none.
func (p *Permission) Unwatch(fs *os.File) error {
	return errors.Join(
		gone(p.mark(fs, unix.FAN_MARK_REMOVE|unix.FAN_MARK_FILESYSTEM, idle|armed)),
		gone(p.mark(fs, unix.FAN_MARK_REMOVE|unix.FAN_MARK_FILESYSTEM|unix.FAN_MARK_IGNORE_SURV, idle)))
}

// Silence ends all events of this group for what is done through one mount,
// such as a bind mount that only this process can reach. It lasts as long as
// the mount does.
func (p *Permission) Silence(mount *os.File) error {
	return p.mark(mount, unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT|unix.FAN_MARK_IGNORE_SURV, idle|armed)
}

// Ignore ends the events of one file, until Heed, HeedAll, or until the kernel
// needs the memory and forgets the inode: then they come again. Events that
// are in the queue stay there.
func (p *Permission) Ignore(fd int) error {
	return p.markFD(fd, "", unix.FAN_MARK_ADD|unix.FAN_MARK_IGNORE_SURV|unix.FAN_MARK_EVICTABLE, armed)
}

// IgnorePlace is Ignore for a descriptor of O_PATH: the file is not opened.
func (p *Permission) IgnorePlace(fd int) error {
	path := "/proc/self/fd/" + strconv.Itoa(fd)
	err := p.using(func() error {
		return unix.FanotifyMark(p.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_IGNORE_SURV|unix.FAN_MARK_EVICTABLE, armed, unix.AT_FDCWD, path)
	})
	if err != nil {
		return failed("fanotify_mark", path, err)
	}
	return nil
}

// Heed undoes Ignore.
func (p *Permission) Heed(fd int) error {
	return gone(p.markFD(fd, "", unix.FAN_MARK_REMOVE|unix.FAN_MARK_IGNORE_SURV, armed))
}

// HeedAll undoes every Ignore of this group, on all file systems. Its time
// grows with their number.
func (p *Permission) HeedAll() error {
	err := p.using(func() error {
		return unix.FanotifyMark(p.fd, unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD, "/")
	})
	if err != nil {
		return failed("fanotify_mark flush", "inodes", err)
	}
	return nil
}

func (p *Permission) mark(f *os.File, flags uint, mask uint64) error {
	err := p.markFD(int(f.Fd()), f.Name(), flags, mask)
	runtime.KeepAlive(f)
	return err
}

func (p *Permission) markFD(fd int, name string, flags uint, mask uint64) error {
	err := p.using(func() error {
		return unix.FanotifyMark(p.fd, flags, mask, fd, "")
	})
	if err != nil {
		return failed("fanotify_mark", name, err)
	}
	return nil
}

// gone takes a mark that is not there for one that was removed.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
