package process

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// Tasks calls each for every thread of every process that there is from
// beginning to end, those of the kernel too.
func Tasks(each func(pid, tid int)) error {
	buf := make([]byte, threadsBuffer)
	return Processes(func(pid int) {
		eachThreadIn(buf, pid, func(tid int) { each(pid, tid) })
	})
}

// Processes calls each for every process, those of the kernel too.
func Processes(each func(pid int)) error {
	dir, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return failed("open", "/proc", err)
	}
	defer unix.Close(dir)
	list := directory{fd: dir, buf: make([]byte, 32<<10)}
	for {
		pid, ok := list.next()
		if !ok {
			return nil
		}
		each(pid)
	}
}

// eachThread lists the threads of a process. The buffer is large, since a
// thread that ends between two reads can hide another one.
func eachThread(pid int, each func(tid int)) {
	eachThreadIn(make([]byte, threadsBuffer), pid, each)
}

const threadsBuffer = 32 << 10

func eachThreadIn(buf []byte, pid int, each func(tid int)) {
	path := procPath(pid, "task")
	dir, err := path.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return
	}
	defer unix.Close(dir)
	list := directory{fd: dir, buf: buf}
	for {
		tid, ok := list.next()
		if !ok {
			return
		}
		each(tid)
	}
}

// Name is the short name of a process, as ps shows it: at most 15 bytes, and
// the process may have chosen it. It is empty when the process is gone.
func Name(pid int) string {
	path := procPath(pid, "comm")
	var buf [64]byte
	b, _ := path.read(buf[:])
	return string(bytes.TrimSuffix(b, []byte("\n")))
}

// A Mapping is a part of a process's memory that shows a file.
type Mapping struct {
	Start, End uint64
	Readable   bool
	Shared     bool // stores go to the file; otherwise to a private copy
	Writable   bool // now; see MayBecomeWritable
	Offset     uint64
	Dev, Ino   uint64 // the device is that of the file system: on btrfs stat says another one
	Path       []byte // as the kernel names it, with " (deleted)"; valid during the call only
}

// MayBecomeWritable tells whether a shared mapping of a process can be written
// to now or, by mprotect, later: whether it was made by a descriptor for
// writing. When it cannot be found out, it may. This waits for the memory of
// the process, and goes through all of it: not to be asked during a freeze.
//
// It is "mw" among the VmFlags of smaps. The mode of the entry in map_files
// would be cheaper, but is that of an earlier mapping of the same addresses, if
// there was one (seen).
func (m Mapping) MayBecomeWritable(tid int) bool {
	path := procPath(tid, "smaps")
	return FlagsOfMappings(path.String(), func() {}).MayBecomeWritable(m.Start, m.End)
}

// Mappings calls each for every mapping of a file in the memory of a process.
func Mappings(pid int, each func(Mapping)) {
	if mappingsOf(pid, each) {
		return
	}
	// The first thread has no memory any more when it ended before the
	// others, and a thread of the kernel has none at all.
	done := false
	eachThread(pid, func(tid int) {
		done = done || tid != pid && mappingsOf(tid, each)
	})
}

// mappingsOf returns whether there were any lines.
func mappingsOf(tid int, each func(Mapping)) (some bool) {
	path := procPath(tid, "maps")
	fd, err := path.open(unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	buf := make([]byte, 16<<10) // more than a line: PATH_MAX, escaped, and some
	left := 0                   // of an unfinished line
	for left < len(buf) {
		b, err := readFD(fd, buf[left:])
		if err != nil || len(b) == 0 {
			break
		}
		some = true
		rest := buf[:left+len(b)]
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			if m, ok := parseMapping(rest[:i]); ok && m.Ino != 0 {
				each(m)
			}
			rest = rest[i+1:]
		}
		left = copy(buf, rest)
	}
	return some
}

// parseMapping parses "start-end rwxp offset major:minor inode path"
// (proc_pid_maps(5)). Memory that shows no file has the inode 0.
func parseMapping(line []byte) (m Mapping, ok bool) {
	span, rest := field(line)
	perms, rest := field(rest)
	offset, rest := field(rest)
	dev, rest := field(rest)
	ino, rest := field(rest)
	dash, colon := bytes.IndexByte(span, '-'), bytes.IndexByte(dev, ':')
	if dash < 0 || colon < 0 || len(perms) != 4 {
		return m, false
	}
	m.Ino = number(ino, 10)
	m.Start, m.End = number(span[:dash], 16), number(span[dash+1:], 16)
	m.Readable, m.Writable, m.Shared = perms[0] == 'r', perms[1] == 'w', perms[3] == 's'
	m.Offset = number(offset, 16)
	m.Dev = unix.Mkdev(uint32(number(dev[:colon], 16)), uint32(number(dev[colon+1:], 16)))
	m.Path = bytes.TrimLeft(rest, " ")
	return m, true
}
