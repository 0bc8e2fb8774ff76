package opened

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Prober finds out whether an open file makes pre-content events. The kernel
// decides that when a file is opened, by whether anybody wants events then
// (fsnotify_open_perm_and_set_mode() in fs/notify/fsnotify.c), and shows it
// nowhere. But an access through that same open file shows it: the prober has
// a group of its own, marks the inode, and tries an fallocate(2) whose end no
// file offset can express, so that it must fail with EFBIG. The event comes
// before that is checked (vfs_fallocate() in fs/open.c); the file system is
// never asked, nothing is changed, and a freeze does not hold it up.
//
// Others who access the inode in these microseconds make events for the prober,
// too. It lets them go on at once, and needs free descriptors for that: a
// reader that can open none makes the kernel deny the access.
type Prober struct {
	group int
	stop  int // an eventfd
	ended chan struct{}

	mu   sync.Mutex // one question at a time
	task atomic.Int32
	seen atomic.Bool
}

// NewProber fails with EINVAL where the kernel has no pre-content events.
func NewProber() (*Prober, error) {
	group, err := unix.FanotifyInit(unix.FAN_CLASS_PRE_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_UNLIMITED_QUEUE|unix.FAN_REPORT_TID,
		unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC|unix.O_NOATIME)
	if err != nil {
		return nil, failed("fanotify_init", err)
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(group)
		return nil, failed("eventfd", err)
	}
	p := &Prober{group: group, stop: stop, ended: make(chan struct{})}
	go p.answer()
	return p, nil
}

// Close ends the prober. Whoever waits for an answer goes on.
func (p *Prober) Close() error {
	one := binary.NativeEndian.AppendUint64(nil, 1)
	if _, err := unix.Write(p.stop, one); err != nil {
		return failed("write", err)
	}
	<-p.ended
	return errors.Join(unix.Close(p.group), unix.Close(p.stop))
}

// Emits tells whether the open file of fd, which must be open for writing,
// makes pre-content events. Where that cannot be found out it fails.
func (p *Prober) Emits(fd int) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	if err := unix.FanotifyMark(p.group, unix.FAN_MARK_ADD, unix.FAN_PRE_ACCESS, unix.AT_FDCWD, path); err != nil {
		return false, failed("fanotify_mark", err)
	}
	defer func() { // in reverse: nobody waits for a prober that has no mark
		_ = unix.FanotifyMark(p.group, unix.FAN_MARK_REMOVE, unix.FAN_PRE_ACCESS, unix.AT_FDCWD, path)
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p.seen.Store(false)
	p.task.Store(int32(unix.Gettid()))
	defer p.task.Store(0)
	for {
		err := unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, math.MaxInt64, 1<<20)
		if err == unix.EINTR {
			continue
		}
		// Whatever else it says, it said so before it came to the size, so
		// that an event cannot be expected.
		if err != unix.EFBIG {
			return false, failed("fallocate", err)
		}
		return p.seen.Load(), nil
	}
}

// answer lets everybody go on, and notes the task that asks.
func (p *Prober) answer() {
	defer close(p.ended)
	runtime.LockOSThread()     // with the thread, and not only with a goroutine, so that it is never late
	buf := make([]byte, 1<<10) // of 42 events at most, since each takes a descriptor
	wait := []unix.PollFd{{Fd: int32(p.group), Events: unix.POLLIN}, {Fd: int32(p.stop), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(wait, -1); err != nil && err != unix.EINTR {
			return
		}
		n, err := unix.Read(p.group, buf)
		if err == nil {
			p.letGo(buf[:n])
			continue
		}
		if wait[1].Revents != 0 {
			return
		}
	}
}

// letGo answers events (fanotify(7)): a length of 32 bits, a version of 8, the
// length of the head, the mask of 64, a descriptor of 32, the task.
func (p *Prober) letGo(events []byte) {
	for len(events) >= 24 {
		length := int(binary.NativeEndian.Uint32(events))
		fd, task := int32(binary.NativeEndian.Uint32(events[16:])), int32(binary.NativeEndian.Uint32(events[20:]))
		if length < 24 || length > len(events) {
			return
		}
		events = events[length:]
		if task == p.task.Load() {
			p.seen.Store(true)
		}
		if fd < 0 {
			continue
		}
		response := binary.NativeEndian.AppendUint32(nil, uint32(fd))
		response = binary.NativeEndian.AppendUint32(response, unix.FAN_ALLOW)
		_, _ = unix.Write(p.group, response)
		_ = unix.Close(int(fd))
	}
}
