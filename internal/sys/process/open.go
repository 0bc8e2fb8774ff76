package process

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Descriptor is an open file of a process.
type Descriptor struct {
	TID int // a thread that has it; most often the process itself
	FD  int
	File
	Flags int // of open(2)
}

// Regular tells whether it is a regular file.
func (f File) Regular() bool { return f.Mode&unix.S_IFMT == unix.S_IFREG }

// FileOf tells what a descriptor of a thread stands for.
func FileOf(tid, fd int) (File, error) {
	path := procNumber(tid, "fd/", fd)
	f, err := statAt(unix.AT_FDCWD, &path[0])
	if err != nil {
		return File{}, failed("statx", path.String(), err)
	}
	return f, nil
}

// FlagsOf returns the flags of open(2) of a descriptor.
func FlagsOf(tid, fd int) (int, error) {
	path := procNumber(tid, "fdinfo/", fd)
	flags, err := path.flags()
	if err != nil {
		return 0, failed("read", path.String(), err)
	}
	return flags, nil
}

// Descriptors calls each for every open file of the process that lies on the
// device dev, or for all if dev is 0. Threads with descriptors of their own
// are looked at, too.
func Descriptors(pid int, dev uint64, each func(Descriptor)) {
	eachTable(pid, func(tid int) { descriptorsOf(tid, dev, each) })
}

// DescriptorsInTime returns the same; ok is false when the process does not
// answer.
func DescriptorsInTime(pid int, dev uint64) (ds []Descriptor, ok bool) {
	return InTime(pid, func() (ds []Descriptor) {
		Descriptors(pid, dev, func(d Descriptor) { ds = append(ds, d) })
		return ds
	})
}

// eachTable calls f with one thread for each table of descriptors that the
// threads of a process have. Nearly always that is one for all, but a thread
// can have its own (unshare, CLONE_FILES), and the first thread has none any
// more when it ended before the others.
func eachTable(pid int, f func(tid int)) {
	var few [4]int
	known := few[:0]
	eachThread(pid, func(tid int) {
		for _, other := range known {
			if sameFiles(tid, other) {
				return
			}
		}
		known = append(known, tid)
		f(tid)
	})
}

// sameFiles tells whether two threads share their descriptors (kcmp(2)). If
// the kernel cannot tell, they do not: looking twice is harmless.
func sameFiles(a, b int) bool {
	const kcmpFiles = 2 // KCMP_FILES
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpFiles, 0, 0, 0)
	return errno == 0 && order == 0
}

func descriptorsOf(tid int, dev uint64, each func(Descriptor)) {
	path := procPath(tid, "fd")
	dir, err := path.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return
	}
	defer unix.Close(dir)
	list := directory{fd: dir, buf: make([]byte, 16<<10)}
	for {
		fd, ok := list.next()
		if !ok {
			return
		}
		var digits name
		digits.append(fd)
		f, err := statAt(dir, &digits[0])
		if err != nil || dev != 0 && f.Dev != dev {
			continue
		}
		// Only of a file that is wanted: for some kinds, such as epoll, the
		// kernel takes locks to write this.
		if flags, err := FlagsOf(tid, fd); err == nil {
			each(Descriptor{tid, fd, f, flags})
		}
	}
}

// statAt looks at an entry of /proc/TID/fd. A dead server is not asked, and
// does not make it wait (AT_STATX_DONT_SYNC).
func statAt(dir int, path *byte) (File, error) {
	var st unix.Statx_t
	for {
		_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(path)),
			unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE|unix.STATX_MODE|unix.STATX_INO, uintptr(unsafe.Pointer(&st)), 0)
		switch errno {
		case 0:
			return File{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino, Mode: uint32(st.Mode)}, nil
		case unix.EINTR:
		default:
			return File{}, errno
		}
	}
}

// flags reads /proc/TID/fdinfo/FD, whose second line has them in octal
// (seq_show of fs/proc/fd.c).
func (n *name) flags() (int, error) {
	var buf [128]byte
	b, err := n.read(buf[:])
	if err != nil {
		return 0, err
	}
	for len(b) > 0 {
		var key, value []byte
		key, b = field(b)
		if string(key) == "flags:" {
			value, _ = field(b)
			return int(number(value, 8)), nil
		}
	}
	return 0, unix.ESRCH
}
