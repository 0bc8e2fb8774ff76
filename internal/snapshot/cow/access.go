package cow

import (
	"syscall"

	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/sys/process"
)

// An access is an event with what is found out about it when it is asked for.
type access struct {
	fanotify.Event
	known bool
	st    syscall.Stat_t
	asked bool
	doing process.Doing
}

// number is the inode's.
func (a *access) number() uint64 {
	if !a.known {
		a.known = true
		_ = syscall.Fstat(int(a.FD), &a.st) // of a file that is open
	}
	return a.st.Ino
}

// does tells what the one who waits is doing; Unknown if that cannot be told.
func (a *access) does() process.Doing {
	if !a.asked {
		a.asked = true
		a.doing, _ = process.DoingOf(int(a.TID), process.Question{
			Open: a.Kind == fanotify.OpenFile, Offset: a.Offset, Count: a.Count,
			Ino: a.number(), Dev: a.st.Dev,
		})
	}
	return a.doing
}

// waits tells whether it has to wait at the gate. Who opens a file to truncate
// it has not: the freeze waits for it, and it must not wait for the freeze
// (do_open in fs/namei.c takes mnt_want_write before the event).
func (a *access) waits() bool {
	if a.Kind == fanotify.OpenFile {
		return false
	}
	switch a.does() {
	case process.Reads, process.MapsPrivate, process.MapsReadOnly:
		return false
	}
	return true
}

// changes is the range that may change when it goes on, if any; an end below 0
// is the end of the file. What is mapped shared may change from now on without
// a further event, and beyond the range, too (mremap(2), remap_file_pages(2)).
func (a *access) changes() (from, end int64, some bool) {
	switch a.does() {
	case process.Reads, process.MapsPrivate, process.MapsReadOnly, process.Opens:
		return 0, 0, false
	case process.Writes:
		if a.Count > 0 {
			return int64(a.Offset), int64(min(a.Offset+a.Count, 1<<62)), true
		}
		return int64(a.Offset), -1, true
	case process.WritesToEnd:
		return int64(a.Offset), -1, true
	case process.Truncates, process.MapsShared:
		return 0, -1, true
	}
	if a.Kind == fanotify.OpenFile {
		return 0, -1, true
	}
	return int64(a.Offset), -1, true
}

// maps tells whether it may be a shared mapping, stores into which make no
// event.
func (a *access) maps() bool {
	return a.Kind == fanotify.Access && (a.does() == process.MapsShared || a.does() == process.Unknown)
}

// behind tells whether it is a write to another file, below which this one lies:
// an overlay, or a FUSE file system that lets the kernel write itself. These can
// change it without events, too.
func (a *access) behind() bool {
	if a.Kind == fanotify.OpenFile || a.does() != process.Writes {
		return false
	}
	c, err := process.CallOf(int(a.TID))
	if err != nil {
		return false
	}
	switch c.Number {
	case syscall.SYS_WRITE, syscall.SYS_PWRITE64, syscall.SYS_WRITEV, syscall.SYS_PWRITEV, syscall.SYS_FALLOCATE:
		f, err := process.FileOf(int(a.TID), int(int32(c.Args[0])))
		return err == nil && (f.Ino != a.st.Ino || f.Dev != a.st.Dev)
	}
	return false
}
