package cachefile

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// A File holds originals. Its methods may be called from several goroutines,
// Close when no other one runs.
//
// What is saved is in memory when Save returns, and is written behind. A write
// that fails then makes the file lost at once: Err says so, and what was not
// written is never read.
//
// What is saved goes through memory of ours, with pread and pwrite. The
// copying calls of the kernel (copy_file_range, splice, sendfile) are no good
// here: between two file systems they move at most 64 KiB at a time, and what
// they move are references to the pages of the live file, so that a store
// into such a page would change what is being saved.
type File struct {
	fd     int
	dir    string
	limits Limits
	behind *behind

	once    sync.Once
	useless chan struct{} // closed when nothing will be read any more
	quit    chan struct{} // closed by Close
	ended   sync.WaitGroup

	maximum atomic.Int64
	used    atomic.Int64 // reserved bytes: where the next save goes
	checked atomic.Int64 // how much was used when the free space was last looked at
	saved   atomic.Int64 // calls
	content atomic.Int64 // bytes
	lost    atomic.Pointer[error]
}

// Stats says how full a File is. Nothing in it is ever given back, so what is
// used is the high-water mark, too.
type Stats struct {
	Used    int64 `json:"used"`    // bytes of the file that are taken
	Content int64 `json:"content"` // bytes saved; the rest of Used is rounding
	Maximum int64 `json:"maximum"`
	Saves   int64 `json:"saves"` // calls that saved something
}

// unit is what every save begins at a multiple of, and pieces is how much is
// read and written at once: a page, and what amortises the calls while it still
// fits a CPU's cache.
const (
	unit   = 4096
	pieces = 256 << 10
)

// Create makes the i-th cache file of a placement. Its initial size is
// reserved at once, so that a volume that is already full fails here, before
// anything is captured; beyond that, space is taken as it is needed. Failures
// have the codes cache-full and cache-lost.
func Create(p Placement, i int) (*File, error) {
	dir, err := file.Open(file.Here, p.Dir, file.Read|file.Directory)
	if err != nil {
		return nil, problem.New(codeOf(err), p.Dir, fmt.Errorf("create a cache file: %w", err))
	}
	defer file.Close(dir)
	return CreateIn(dir, p, i)
}

// CreateIn is Create in a directory that is open: that of the placement, by
// whichever mount. The file can never get a name.
func CreateIn(dir int, p Placement, i int) (*File, error) {
	fd, err := file.Open(dir, ".", file.Write|file.Unnamed|file.Forever)
	if err != nil {
		return nil, problem.New(codeOf(err), p.Dir, fmt.Errorf("create a cache file: %w", err))
	}
	f := &File{fd: fd, dir: p.Dir, limits: p.Limits[i], useless: make(chan struct{}), quit: make(chan struct{})}
	f.maximum.Store(f.limits.Maximum)
	if err := f.reserve(f.limits.Initial); err != nil {
		file.Close(fd)
		return nil, err
	}
	f.behind = newBehind(fd, cmp.Or(f.limits.Memory, memory), f.late)
	f.ended.Go(f.behind.run)
	f.ended.Go(f.watch)
	return f, nil
}

// reserve takes space before it is needed, where the file system can.
func (f *File) reserve(n int64) error {
	if n <= 0 {
		return nil
	}
	err := syscall.Fallocate(f.fd, 0, 0, n)
	for err == syscall.EINTR {
		err = syscall.Fallocate(f.fd, 0, 0, n)
	}
	if err == nil || err == syscall.EOPNOTSUPP {
		return nil
	}
	return problem.New(codeOf(err), f.dir, fmt.Errorf("reserve %d MiB for a cache file: %w", n>>20, err))
}

// Stats may be asked at any time.
func (f *File) Stats() Stats {
	return Stats{Used: f.used.Load(), Content: f.content.Load(), Maximum: f.maximum.Load(), Saves: f.saved.Load()}
}

// Inode is the number of the file on its volume.
func (f *File) Inode() (uint64, error) {
	st, err := file.Stat(f.fd, "", file.Itself)
	return st.Inode, err
}

// Err is nil while everything that was to be saved could be.
func (f *File) Err() error {
	if err := f.lost.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the file and gives its space back. It may be called twice.
func (f *File) Close() error {
	b := f.behind
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	b.abandon()
	b.mu.Unlock()
	close(f.quit)
	f.ended.Wait()
	return file.Close(f.fd)
}

// take reserves a range of the file.
func (f *File) take(length int64) (at int64, err error) {
	if err := f.Err(); err != nil {
		return 0, err
	}
	if length < 0 || length > math.MaxInt64-unit {
		return 0, fmt.Errorf("save %d bytes: %w", length, syscall.EINVAL)
	}
	length = roundUp(length)
	for {
		at = f.used.Load()
		if most := f.maximum.Load(); length > most-at {
			return 0, f.lose(problem.Newf(problem.CacheFull, f.dir,
				"the cache file has reached its maximum of %d MiB", most>>20))
		}
		if f.used.CompareAndSwap(at, at+length) {
			break
		}
	}
	return at, f.leaveRoom(at + length)
}

// giveBack returns what a save took and did not need, if nothing was taken
// after it.
func (f *File) giveBack(at, took, used int64) {
	f.used.CompareAndSwap(at+roundUp(took), at+roundUp(used))
}

func roundUp(n int64) int64 { return (n + unit - 1) &^ (unit - 1) }

// late is told of a write that failed after its data had been taken.
func (f *File) late(at int64, err error) {
	f.lose(problem.New(codeOf(err), f.dir, fmt.Errorf("write the cache file at %d MiB: %w", at>>20, err)))
	f.giveUp()
}

// lose makes err, or the one that was first, the answer to everything.
func (f *File) lose(err error) error {
	f.lost.CompareAndSwap(nil, &err)
	return *f.lost.Load()
}

// codeOf tells a place without room from one that fails.
func codeOf(err error) problem.Code {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) {
			return problem.CacheFull
		}
	}
	return problem.CacheLost
}

// Room is how much can still be saved before the maximum is reached.
func (f *File) Room() int64 { return max(0, f.maximum.Load()-f.used.Load()) }

// Raisable is by how much Raise can still make it larger.
func (f *File) Raisable() int64 { return max(0, f.limits.Raised-f.maximum.Load()) }

// Raise lets the file become so much larger, up to its limit for that. It is for
// one caller at a time.
func (f *File) Raise(n int64) {
	f.maximum.Add(min(max(n, 0), f.Raisable()))
}
