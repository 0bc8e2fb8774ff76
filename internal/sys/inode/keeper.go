package inode

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Keeper keeps inodes alive, deleted or not, without a descriptor for each:
// descriptors are sent over a socket and never received. The kernel holds them
// as long as the socket exists, in this process and no longer. A process with
// CAP_SYS_ADMIN or CAP_SYS_RESOURCE may have any number of descriptors under
// way, others as many as RLIMIT_NOFILE says: then Keep fails with ETOOMANYREFS
// (net/core/scm.c: too_many_unix_fds). It costs the kernel what any open
// descriptor does: the inode, its name's dentry and the open file, which cannot
// be reclaimed. Its methods may be called from several goroutines.
type Keeper struct {
	count   atomic.Int64
	limit   int64
	refused atomic.Int64

	mu      sync.Mutex
	sockets []int // pairs; the last one is sent to
	batch   []int // not sent yet
	closed  bool
	over    bool // LetGo was called
}

// batchSize is how many descriptors go into one message; SCM_MAX_FD is 253,
// but until a message is sent its descriptors count for RLIMIT_NOFILE.
const batchSize = 100

// NewKeeper makes a Keeper that keeps nothing yet, and at most limit inodes; 0
// is no limit.
func NewKeeper(limit int64) (*Keeper, error) {
	k := &Keeper{limit: limit, batch: make([]int, 0, batchSize)}
	if err := k.extend(); err != nil {
		return nil, err
	}
	return k, nil
}

// extend adds a pair of sockets. The receiver of a connected pair of datagram
// sockets has no limit of messages (net/unix/af_unix.c, unix_dgram_sendmsg);
// what is under way counts for the sender's buffer.
func (k *Keeper) extend() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return failed("socketpair", "", err)
	}
	const room = 1 << 30
	if unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, room) != nil {
		_ = unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_SNDBUF, room) // up to net.core.wmem_max
	}
	k.sockets = append(k.sockets, pair[0], pair[1])
	return nil
}

// Keep keeps the inode of fd until Close, or lets it go when there are too many
// of them. It takes fd over, also when it
// fails, and closes it when the message it goes with is sent. fd is best one of
// O_PATH, which is in nobody's way.
func (k *Keeper) Keep(fd int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		unix.Close(fd)
		return failed("keep", "inode", os.ErrClosed)
	}
	if k.over || k.limit > 0 && k.count.Load() >= k.limit {
		k.refused.Add(1)
		unix.Close(fd)
		return nil
	}
	k.batch = append(k.batch, fd)
	k.count.Add(1)
	if len(k.batch) < batchSize {
		return nil
	}
	return k.flush()
}

// Flush sends what waits for a full message, which is as safe as what is sent
// but has descriptors in this process.
func (k *Keeper) Flush() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.flush()
}

func (k *Keeper) flush() error {
	if len(k.batch) == 0 || k.closed {
		return nil
	}
	err := k.send()
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) { // the buffer is full
		if err = k.extend(); err == nil {
			err = k.send()
		}
	}
	for _, fd := range k.batch {
		unix.Close(fd)
	}
	if err != nil {
		k.count.Add(-int64(len(k.batch)))
	}
	k.batch = k.batch[:0]
	return err
}

func (k *Keeper) send() error {
	rights := unix.UnixRights(k.batch...)
	to := k.sockets[len(k.sockets)-2]
	for {
		err := unix.Sendmsg(to, []byte{0}, rights, nil, unix.MSG_NOSIGNAL)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return failed("sendmsg", "descriptors", err)
		}
	}
}

// Count is how many inodes are kept.
func (k *Keeper) Count() int { return int(k.count.Load()) }

// Refused is how many inodes were too many.
func (k *Keeper) Refused() int { return int(k.refused.Load()) }

// LetGo lets go of all, and keeps nothing any more. Those that were deleted are
// freed by it, as by Close.
func (k *Keeper) LetGo() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed && !k.over {
		k.over = true
		k.drop()
	}
}

func (k *Keeper) drop() {
	for _, fd := range append(k.batch, k.sockets...) {
		unix.Close(fd)
	}
	k.batch, k.sockets = nil, nil
	k.count.Store(0)
}

// Close lets go of all. Those that were deleted are freed by it, which is a
// write: never while their file system is frozen. It may be called twice.
func (k *Keeper) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil
	}
	k.closed = true
	k.drop()
	return nil
}
