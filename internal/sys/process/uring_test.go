package process

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ring is just enough of io_uring to submit two requests (io_uring(7)).
type ring struct {
	fd         int
	queue, sqe []byte
	tail       *uint32
	array      unsafe.Pointer
}

// Requests and flags (linux/io_uring.h).
const (
	opPollAdd = 6
	opWrite   = 23
	sqeLink   = 1 << 2
	sqeAsync  = 1 << 4
)

func newRing(t *testing.T) *ring {
	t.Helper()
	var params struct {
		entries, cqEntries, flags, threadCPU, idle, features, wqFD uint32
		reserved                                                   [3]uint32
		head, tail, mask, size, sqFlags, dropped, array, reserved1 uint32
		user                                                       uint64
		cq                                                         [10]uint32
	}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		t.Fatalf("io_uring_setup: %v", errno)
	}
	r := &ring{fd: int(fd)}
	var err error
	r.queue, err = unix.Mmap(r.fd, 0, int(params.array+4*params.entries), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	must(t, err)
	r.sqe, err = unix.Mmap(r.fd, 0x10000000, 64*8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	must(t, err)
	r.tail = (*uint32)(unsafe.Pointer(&r.queue[params.tail]))
	r.array = unsafe.Pointer(&r.queue[params.array])
	t.Cleanup(func() {
		_ = unix.Munmap(r.queue)
		_ = unix.Munmap(r.sqe)
		unix.Close(r.fd)
	})
	return r
}

// add prepares a request.
func (r *ring) add(op, flags byte, fd int, offset uint64, address uintptr, length, opFlags uint32) {
	i := *r.tail
	s := r.sqe[64*i : 64*i+64]
	s[0], s[1] = op, flags
	*(*int32)(unsafe.Pointer(&s[4])) = int32(fd)
	*(*uint64)(unsafe.Pointer(&s[8])) = offset
	*(*uint64)(unsafe.Pointer(&s[16])) = uint64(address)
	*(*uint32)(unsafe.Pointer(&s[24])) = length
	*(*uint32)(unsafe.Pointer(&s[28])) = opFlags
	*(*uint32)(unsafe.Add(r.array, 4*i)) = i
	atomic.StoreUint32(r.tail, i+1)
}

func (r *ring) enter(submit, wait uintptr) error {
	flags := uintptr(0)
	if wait > 0 {
		flags = 1 // IORING_ENTER_GETEVENTS
	}
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, wait, flags, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// What io_uring does in other threads, or in a thread that has just done
// something else, is never taken for a read.
func TestRing(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		take := watchVolume(t, dir)
		must(t, os.WriteFile(dir+"/file", make([]byte, 64<<10), 0o600))
		fd, err := unix.Open(dir+"/file", unix.O_RDWR|unix.O_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		data := make([]byte, 100)
		address := uintptr(unsafe.Pointer(&data[0]))
		expect := func(what string) {
			t.Helper()
			events := take()
			for _, a := range events {
				if a.doing != Unknown {
					t.Errorf("%s: %+v", what, a)
				}
			}
			if len(events) == 0 {
				t.Errorf("%s: no event", what)
			}
			t.Logf("%s: %+v", what, events)
		}
		take()

		r := newRing(t)
		r.add(opWrite, sqeAsync, fd, 4096, address, 100, 0)
		must(t, r.enter(1, 1))
		expect("by a worker")

		// A write waits for a pipe, in a thread that then reads from another
		// one. It is done in that very thread, on its way out of the read,
		// with the number of the read still there (seen on XFS), or by a
		// worker that is started there, and has a copy of it (ext4).
		gate, idle := make([]int, 2), make([]int, 2)
		must(t, unix.Pipe2(gate, unix.O_CLOEXEC))
		must(t, unix.Pipe2(idle, unix.O_CLOEXEC))
		tid := make(chan int, 1)
		var reading sync.WaitGroup
		reading.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			r := newRing(t)
			r.add(opPollAdd, sqeLink, gate[0], 0, 0, 0, unix.POLLIN)
			r.add(opWrite, 0, fd, 4096, address, 100, 0)
			if err := r.enter(2, 0); err != nil {
				t.Error(err)
			}
			tid <- unix.Gettid()
			_, _ = unix.Read(idle[0], make([]byte, 1)) // starts again after the write
		})
		reader := <-tid
		awaitCall(t, reader, sysRead)
		_, err = unix.Write(gate[1], []byte("x"))
		must(t, err)
		var got []asked
		for range 100 {
			if got = append(got, take()...); len(got) > 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		_, err = unix.Write(idle[1], []byte("x"))
		must(t, err)
		reading.Wait()
		if len(got) == 0 || got[0].doing != Unknown {
			t.Errorf("in thread %d, after a read: %+v", reader, got)
		}
		if len(got) > 0 && got[0].call.Number != sysRead {
			t.Errorf("the trap is not one: %+v", got)
		}
		t.Logf("in thread %d, after a read: %+v", reader, got)
		for _, end := range append(gate, idle...) {
			unix.Close(end)
		}
	})
}
