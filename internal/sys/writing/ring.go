package writing

import (
	"errors"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Ring is one of io_uring that does one thing at a time.
type Ring struct {
	fd              int
	params          ringParams
	rings, requests []byte
	registered      bool
}

// ringParams is struct io_uring_params of linux/io_uring.h.
type ringParams struct {
	submissions, completions, flags, cpu, idle, features, worker uint32
	_                                                            [3]uint32
	sq                                                           struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// request is struct io_uring_sqe.
type request struct {
	opcode, flags uint8
	priority      uint16
	fd            int32
	offset        uint64
	address       uint64
	length        uint32
	more          uint32
	data          uint64
	buffer        uint16
	personality   uint16
	from          int32
	_             [2]uint64
}

const (
	opFallocate = 17
	opWrite     = 23
	opSplice    = 30
	opFtruncate = 55
)

// A How says how a request is made; values can be combined.
type How uint8

// The ways to make a request.
const (
	Registered How = 1 << 0 // the file is an index of what was registered (IOSQE_FIXED_FILE)
	Async      How = 1 << 4 // by a worker thread from the start (IOSQE_ASYNC)
)

// NewRing makes a ring; with polled, a thread of the kernel looks for
// requests.
func NewRing(polled bool) (*Ring, error) {
	r := &Ring{}
	if polled {
		r.params.flags, r.params.idle = 1<<1, 1 // IORING_SETUP_SQPOLL; asleep after a millisecond
	}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&r.params)), 0)
	if errno != 0 {
		return nil, failed("io_uring_setup", errno)
	}
	r.fd = int(fd)
	unix.CloseOnExec(r.fd)
	var err error
	// Both rings are in one mapping since Linux 5.4 (IORING_FEAT_SINGLE_MMAP).
	size := max(r.params.sq.array+4*r.params.submissions, r.params.cq.cqes+16*r.params.completions)
	if r.rings, err = unix.Mmap(r.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err == nil {
		r.requests, err = unix.Mmap(r.fd, 0x10000000, int(r.params.submissions)*64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	}
	if err != nil {
		return nil, errors.Join(failed("mmap", err), r.Close())
	}
	return r, nil
}

// Close ends the ring. What is still registered then, the kernel lets go of
// some time later, so that a volume stays busy; hence that is undone first.
func (r *Ring) Close() error {
	if r.registered {
		_, _, _ = unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), 3 /* IORING_UNREGISTER_FILES */, 0, 0, 0, 0)
	}
	for _, m := range [][]byte{r.rings, r.requests} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	return result("close", unix.Close(r.fd))
}

// Register makes files those of index 0, 1 and so on. They may be closed then.
func (r *Ring) Register(fds ...int32) error {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), 2 /* IORING_REGISTER_FILES */, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), 0, 0)
	r.registered = errno == 0
	return result("io_uring_register", code(errno))
}

// Write writes p to a file.
func (r *Ring) Write(fd int, p []byte, offset int64, how How) error {
	var pins runtime.Pinner
	defer pins.Unpin()
	pins.Pin(&p[0])
	n, err := r.do(request{opcode: opWrite, flags: uint8(how), fd: int32(fd), offset: uint64(offset),
		address: uint64(uintptr(unsafe.Pointer(&p[0]))), length: uint32(len(p))})
	if err != nil {
		return err
	}
	return whole("io_uring write", n, len(p))
}

// Fallocate is fallocate(2).
func (r *Ring) Fallocate(fd int, mode uint32, offset, length int64, how How) error {
	n, err := r.do(request{opcode: opFallocate, flags: uint8(how), fd: int32(fd), offset: uint64(offset), address: uint64(length), length: mode})
	if err != nil {
		return err
	}
	return whole("io_uring fallocate", n, 0)
}

// Truncates tells whether the kernel knows Truncate.
func (r *Ring) Truncates() (bool, error) {
	var probe struct { // struct io_uring_probe of linux/io_uring.h
		last, count uint8
		_           uint16
		_           [3]uint32
		ops         [256]struct {
			op, _ uint8
			flags uint16
			_     uint32
		}
	}
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), 8 /* IORING_REGISTER_PROBE */, uintptr(unsafe.Pointer(&probe)), uintptr(len(probe.ops)), 0, 0)
	if errno != 0 {
		return false, failed("io_uring_register", errno)
	}
	const supported = 1 // IO_URING_OP_SUPPORTED
	return probe.last >= opFtruncate && probe.ops[opFtruncate].flags&supported != 0, nil
}

// Truncate is ftruncate(2) (Linux 6.9).
func (r *Ring) Truncate(fd int, size int64, how How) error {
	n, err := r.do(request{opcode: opFtruncate, flags: uint8(how), fd: int32(fd), offset: uint64(size)})
	if err != nil {
		return err
	}
	return whole("io_uring ftruncate", n, 0)
}

// Splice moves n bytes out of a pipe to a file.
func (r *Ring) Splice(fd int, offset int64, pipe, n int, how How) error {
	done, err := r.do(request{opcode: opSplice, flags: uint8(how), fd: int32(fd), offset: uint64(offset),
		address: ^uint64(0), length: uint32(n), from: int32(pipe)})
	if err != nil {
		return err
	}
	return whole("io_uring splice", done, n)
}

func (r *Ring) word(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[offset])) }

// do makes one request and waits for its end.
func (r *Ring) do(q request) (int64, error) {
	*(*request)(unsafe.Pointer(&r.requests[0])) = q
	tail := atomic.LoadUint32(r.word(r.params.sq.tail))
	mask := *r.word(r.params.sq.mask)
	*r.word(r.params.sq.array + 4*(tail&mask)) = 0
	atomic.StoreUint32(r.word(r.params.sq.tail), tail+1)
	const getEvents, wakeUp = 1, 2 // the latter wakes a polling thread that sleeps
	flags := uintptr(getEvents)
	if r.params.flags != 0 {
		flags |= wakeUp
	}
	head := atomic.LoadUint32(r.word(r.params.cq.head))
	submit := uintptr(1)
	for atomic.LoadUint32(r.word(r.params.cq.tail)) == head {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, 1, flags, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return 0, failed("io_uring_enter", errno)
		}
		if errno == 0 {
			submit = 0
		}
	}
	at := r.params.cq.cqes + 16*(head&*r.word(r.params.cq.mask))
	n := *(*int32)(unsafe.Pointer(&r.rings[at+8]))
	atomic.StoreUint32(r.word(r.params.cq.head), head+1)
	return int64(n), nil
}
