package tree

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"stillpoint/internal/sys/file"
)

// descriptorBudget is how many descriptors of directories one tree keeps open.
// A tree deeper than that is walked all the same: what was closed is opened
// again from the nearest ancestor that is open.
const descriptorBudget = 64

// errReplaced says that a directory is not the one it was.
var errReplaced = errors.New("another directory has taken its place")

// identity tells files apart.
type identity struct {
	device uint64
	inode  uint64
}

func identityOf(i file.Info) identity { return identity{i.Device, i.Inode} }

// descriptors holds the open directories of one tree and closes those that
// were not used for longest.
type descriptors struct {
	mu     sync.Mutex
	budget int
	open   int
	idle   folder // head of the ring of open folders that nobody uses, the last used first
	closed bool
}

func newDescriptors() *descriptors {
	p := &descriptors{budget: descriptorBudget}
	p.idle.next, p.idle.prev = &p.idle, &p.idle
	return p
}

// A folder is a directory that can be opened again, and is only ever the one
// that it was at first.
type folder struct {
	pool   *descriptors
	parent *folder // nil: name is a path
	name   string
	id     identity

	// Guarded by pool.mu.
	fd         int // -1 while closed
	users      int
	prev, next *folder // while open without users
}

// top opens the directory at a path, which may lead through links.
func (p *descriptors) top(path string) (*folder, file.Info, error) {
	f := &folder{pool: p, name: path, fd: -1}
	info, err := p.first(f)
	return f, info, err
}

// child opens the directory name in f, never through a link.
func (f *folder) child(name string) (*folder, file.Info, error) {
	c := &folder{pool: f.pool, parent: f, name: name, fd: -1}
	info, err := f.pool.first(c)
	return c, info, err
}

// first opens f for the first time, which gives it its identity.
func (p *descriptors) first(f *folder) (file.Info, error) {
	dir := file.Here
	if f.parent != nil {
		fd, err := f.parent.take()
		if err != nil {
			return file.Info{}, err
		}
		defer f.parent.give()
		dir = fd
	}
	fd, info, err := p.openDirectory(dir, f)
	if err != nil {
		return file.Info{}, err
	}
	f.id = identityOf(info)
	if _, err := f.install(fd); err != nil {
		return file.Info{}, err
	}
	f.give()
	return info, nil
}

// take returns f's descriptor, which stays open until give.
func (f *folder) take() (int, error) {
	way, fd, err := f.way()
	if err != nil {
		return -1, err
	}
	for i := len(way) - 1; i >= 0; i-- {
		at := way[i]
		next, err := at.reopen(fd)
		if at.parent != nil {
			at.parent.give()
		}
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// way returns f and its ancestors as far as they are closed, f first, and
// takes the one above them.
func (f *folder) way() ([]*folder, int, error) {
	f.pool.mu.Lock()
	defer f.pool.mu.Unlock()
	if f.pool.closed {
		return nil, -1, os.ErrClosed
	}
	var way []*folder
	for at := f; at != nil; at = at.parent {
		if at.fd >= 0 {
			at.hold()
			return way, at.fd, nil
		}
		way = append(way, at)
	}
	return way, file.Here, nil
}

// reopen opens f in the directory dir and takes it.
func (f *folder) reopen(dir int) (int, error) {
	fd, info, err := f.pool.openDirectory(dir, f)
	if err != nil {
		return -1, err
	}
	if identityOf(info) != f.id {
		return -1, join(errReplaced, file.Close(fd))
	}
	return f.install(fd)
}

// install makes fd f's descriptor, unless another was quicker, and takes it.
func (f *folder) install(fd int) (int, error) {
	p := f.pool
	p.mu.Lock()
	var err error
	var surplus []int
	switch {
	case p.closed:
		surplus, err = []int{fd}, os.ErrClosed
	case f.fd >= 0:
		surplus, fd = []int{fd}, f.fd
		f.hold()
	default:
		f.fd, f.users = fd, 1
		p.open++
		surplus = p.surplus(p.budget)
	}
	p.mu.Unlock()
	return fd, join(err, closeAll(surplus))
}

// hold counts one more user. pool.mu is held.
func (f *folder) hold() {
	if f.users == 0 {
		f.leaveRing()
	}
	f.users++
}

// give ends a take.
func (f *folder) give() {
	p := f.pool
	p.mu.Lock()
	var surplus []int
	if f.users--; f.users == 0 {
		f.enterRing()
		keep := p.budget
		if p.closed {
			keep = 0
		}
		surplus = p.surplus(keep)
	}
	p.mu.Unlock()
	_ = closeAll(surplus) // nothing is written through them
}

// rest closes f until it is used again.
func (f *folder) rest() {
	p := f.pool
	p.mu.Lock()
	fd := -1
	if f.fd >= 0 && f.users == 0 {
		fd = p.forget(f)
	}
	p.mu.Unlock()
	if fd >= 0 {
		_ = file.Close(fd)
	}
}

// close closes everything, what is in use as soon as it is given back.
func (p *descriptors) close() error {
	p.mu.Lock()
	p.closed = true
	surplus := p.surplus(0)
	p.mu.Unlock()
	return closeAll(surplus)
}

// surplus takes from the ring what exceeds the number to keep, the longest
// unused first, for the caller to close without the lock. pool.mu is held.
func (p *descriptors) surplus(keep int) []int {
	var fds []int
	for p.open > keep && p.idle.prev != &p.idle {
		fds = append(fds, p.forget(p.idle.prev))
	}
	return fds
}

// forget takes f out of the ring. pool.mu is held.
func (p *descriptors) forget(f *folder) int {
	fd := f.fd
	f.leaveRing()
	f.fd = -1
	p.open--
	return fd
}

func (f *folder) enterRing() {
	head := &f.pool.idle
	f.prev, f.next = head, head.next
	f.prev.next, f.next.prev = f, f
}

func (f *folder) leaveRing() {
	f.prev.next, f.next.prev = f.next, f.prev
	f.prev, f.next = nil, nil
}

func closeAll(fds []int) error {
	var errs []error
	for _, fd := range fds {
		errs = append(errs, file.Close(fd))
	}
	return join(errs...)
}

// openDirectory opens f in dir and says what it is.
func (p *descriptors) openDirectory(dir int, f *folder) (int, file.Info, error) {
	mode := file.Read | file.Directory
	if f.parent != nil {
		mode |= file.Final
	}
	fd, err := p.openQuietly(dir, f.name, mode)
	if err != nil {
		return -1, file.Info{}, err
	}
	info, err := file.Stat(fd, "", file.Itself)
	if err != nil {
		return -1, file.Info{}, join(err, file.Close(fd))
	}
	return fd, info, nil
}

// openQuietly opens name in dir without leaving a time of access, where that
// is allowed, and makes room when the process has no descriptor left.
func (p *descriptors) openQuietly(dir int, name string, mode file.Mode) (int, error) {
	return p.quietly(mode, func(mode file.Mode) (int, error) { return file.Open(dir, name, mode) })
}

// reopenQuietly is openQuietly for the regular file that place points at.
func (p *descriptors) reopenQuietly(place int) (int, error) {
	return p.quietly(file.Read|file.Prompt, func(mode file.Mode) (int, error) { return file.Reopen(place, mode) })
}

func (p *descriptors) quietly(mode file.Mode, open func(mode file.Mode) (int, error)) (int, error) {
	fd, err := open(mode | file.Quiet)
	if isOneOf(err, syscall.EMFILE, syscall.ENFILE) && p.makeRoom() {
		fd, err = open(mode | file.Quiet)
	}
	if errors.Is(err, syscall.EPERM) {
		return open(mode)
	}
	return fd, err
}

// makeRoom closes all that nobody uses, and tells whether there was any.
func (p *descriptors) makeRoom() bool {
	p.mu.Lock()
	fds := p.surplus(0)
	p.mu.Unlock()
	_ = closeAll(fds)
	return len(fds) > 0
}
