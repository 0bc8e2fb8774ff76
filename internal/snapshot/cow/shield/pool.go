package shield

import (
	"container/list"
	"errors"
	"sync"
	"syscall"

	"stillpoint/internal/snapshot/cow/index"
	"stillpoint/internal/sys/inode"
)

// manySpare is how many live files that nobody reads stay open.
const manySpare = 128

// A pool keeps live files open, because a file is read and saved in many steps.
type pool struct {
	mount int

	mu     sync.Mutex
	open_  map[uint64]*live
	unused *list.List // of *live, the longest unused first
	spare  int        // how many of them there may be
	closed bool
}

// A live is one open file.
type live struct {
	number uint64
	fd     int
	users  int
	place  *list.Element // among the unused
}

func newPool(mount int) *pool {
	return &pool{mount: mount, open_: map[uint64]*live{}, unused: list.New(), spare: manySpare}
}

// open opens a file by its handle. It must be given back. It fails with EAGAIN
// where somebody has a lease on it, who has to give it back first.
func (p *pool) open(in *index.Inode) (*live, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.open_[in.Number]
	if l == nil {
		fd, err := inode.Open(p.mount, in.Handle, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOATIME|syscall.O_LARGEFILE|syscall.O_CLOEXEC)
		if errors.Is(err, syscall.ESTALE) {
			return nil, errGone
		}
		if err != nil {
			return nil, err
		}
		l = &live{number: in.Number, fd: fd}
		p.open_[in.Number] = l
	}
	if l.place != nil {
		p.unused.Remove(l.place)
		l.place = nil
	}
	l.users++
	return l, nil
}

func (p *pool) give(l *live) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.users--; l.users > 0 {
		return
	}
	l.place = p.unused.PushBack(l)
	for p.closed && p.unused.Len() > 0 || p.unused.Len() > p.spare {
		p.drop(p.unused.Front().Value.(*live))
	}
}

func (p *pool) drop(l *live) {
	p.unused.Remove(l.place)
	delete(p.open_, l.number)
	_ = syscall.Close(l.fd)
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for p.unused.Len() > 0 {
		p.drop(p.unused.Front().Value.(*live))
	}
}
