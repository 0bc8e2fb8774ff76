package process

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Handle returns a descriptor of this process (pidfd_open(2)), for another one
// to know and end it by. It is ready for reading when the process has ended
// with all its threads.
func Handle() (*os.File, error) { return handle(os.Getpid(), 0) }

func handle(id, flags int) (*os.File, error) {
	fd, err := unix.PidfdOpen(id, flags)
	if err != nil {
		return nil, failed("pidfd_open", strconv.Itoa(id), err)
	}
	return os.NewFile(uintptr(fd), "process"), nil
}

// Sentinel starts a thread that does nothing until stop is called, and returns
// a descriptor of it. That is ready for reading when the thread has ended: as
// soon as the process is killed, although another thread of it may wait for
// something that no signal ends, so that the process has not. Threads can be
// told apart from Linux 6.9 on (PIDFD_THREAD); the error for older ones wraps
// EINVAL. The first thread of a process would not do: its end is not told
// before that of the others (delay_group_leader).
func Sentinel() (f *os.File, stop func(), err error) {
	ready, quit := make(chan sentinel), make(chan struct{})
	go stand(ready, quit)
	s := <-ready
	return s.f, sync.OnceFunc(func() { close(quit) }), s.err
}

type sentinel struct {
	f   *os.File
	err error
}

func stand(ready chan<- sentinel, quit <-chan struct{}) {
	runtime.LockOSThread() // and the thread ends with the goroutine
	if unix.Gettid() == os.Getpid() {
		// Stay in its way until another one has found a thread.
		defer runtime.UnlockOSThread()
		found := make(chan sentinel)
		go stand(found, quit)
		ready <- <-found
		return
	}
	f, err := handle(unix.Gettid(), unix.PIDFD_THREAD)
	ready <- sentinel{f, err}
	if err == nil {
		<-quit
	}
}

// Kill ends the process that a handle stands for, by SIGKILL. It allocates
// nothing. It returns 0 on success, and ESRCH if the process has ended.
func Kill(handle int) syscall.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_PIDFD_SEND_SIGNAL, uintptr(handle), uintptr(unix.SIGKILL), 0, 0, 0, 0)
	return errno
}

// sparse is the size from which on memory that is neither read from a file nor
// touched yet is left alone by LockMemory.
const sparse = 8 << 20

// LockMemory brings the memory of this process into RAM, with its program, and
// keeps it there, with all that it touches later: nothing it does waits for a
// disk any more. Not brought in are areas of zeros of 8 MiB and more, which are
// tables of the Go runtime, 64 MiB together, that only a growing heap needs.
func LockMemory() error {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return failed("mlockall", "memory", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(maps) {
		m, ok := parseMapping(bytes.TrimSuffix(line, []byte("\n")))
		if !ok || bytes.HasPrefix(m.Path, []byte("[v")) { // vdso and its like
			continue
		}
		advice := 0
		switch size := m.End - m.Start; {
		case m.Writable && (m.Ino != 0 || size < sparse):
			advice = unix.MADV_POPULATE_WRITE
		case m.Ino != 0 && m.Readable:
			advice = unix.MADV_POPULATE_READ
		default:
			continue
		}
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(m.Start), uintptr(m.End-m.Start), uintptr(advice))
		if errno != 0 && errno != unix.ENOMEM { // ENOMEM: unmapped meanwhile
			return failed("madvise", string(m.Path), errno)
		}
	}
	return nil
}

// Spare asks the kernel to end every other process before this one when it is
// out of memory, as far as that is allowed: without CAP_SYS_RESOURCE no value is
// that is below the one this process was born with.
func Spare() {
	fd, err := unix.Open("/proc/self/oom_score_adj", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var b [16]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return
	}
	is, err := strconv.Atoi(string(bytes.TrimSpace(b[:n])))
	if err != nil {
		return
	}
	for wanted := -1000; wanted < is; wanted += 100 {
		if _, err := unix.Pwrite(fd, strconv.AppendInt(b[:0], int64(wanted), 10), 0); err == nil {
			return
		}
	}
}
