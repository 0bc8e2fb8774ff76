package opened

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Mapping is a shared mapping of a file.
type Mapping struct {
	Start, End uint64 // addresses
	Offset     int64  // in the file, of Start
	Device     uint64 // of the file's superblock; what stat(2) says, but for btrfs and overlays
	Inode      uint64
	Writable   bool // now; one that is not may become so by mprotect(2)
}

// query is struct procmap_query of linux/fs.h (Linux 6.11).
type query struct {
	size                 uint64
	flags, address       uint64
	start, end           uint64
	protection, pageSize uint64
	offset, inode        uint64
	major, minor         uint32
	nameSize, idSize     uint32
	nameAddress, idAddr  uint64
}

const (
	procmapQuery   = 0xc0686611 // _IOWR('f', 17, struct procmap_query)
	vmaWritable    = 0x02
	vmaShared      = 0x08
	coveringOrNext = 0x10
	fileBacked     = 0x20
)

// SharedMappings calls each for every shared mapping of a file in the maps
// file of a task, an open descriptor. The name is what maps shows, asked for
// by need. each may end it with an error. It fails with ESRCH where the task has
// no memory (any more).
//
// It waits while one thread of the task waits in a page fault and another one
// waits to change that mapping, so also under a freeze. To read maps as a whole
// waits likewise (seen with Linux 6.18).
func SharedMappings(maps int, each func(m Mapping, name func() string) error) error {
	q := query{}
	for {
		q = query{
			size: uint64(unsafe.Sizeof(q)), address: q.end,
			flags: vmaShared | coveringOrNext | fileBacked,
		}
		switch err := q.ask(maps); {
		case errors.Is(err, unix.ENOENT): // none after this one
			return nil
		case err != nil:
			return err
		}
		m := Mapping{
			Start: q.start, End: q.end, Offset: int64(q.offset), Inode: q.inode,
			Device: unix.Mkdev(q.major, q.minor), Writable: q.protection&vmaWritable != 0,
		}
		if err := each(m, func() string { return nameAt(maps, m.Start) }); err != nil {
			return err
		}
	}
}

// nameAt is empty where the mapping is gone meanwhile.
func nameAt(maps int, start uint64) string {
	buf := make([]byte, unix.PathMax)
	var pins runtime.Pinner // the kernel gets the address as a number
	defer pins.Unpin()
	pins.Pin(&buf[0])
	q := query{
		size: uint64(unsafe.Sizeof(query{})), address: start,
		nameSize: uint32(len(buf)), nameAddress: uint64(uintptr(unsafe.Pointer(&buf[0]))),
	}
	if err := q.ask(maps); err != nil || q.nameSize == 0 {
		return ""
	}
	return unix.ByteSliceToString(buf)
}

func (q *query) ask(maps int) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(maps), procmapQuery, uintptr(unsafe.Pointer(q)))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return os.NewSyscallError("procmap_query", errno)
		}
	}
}
