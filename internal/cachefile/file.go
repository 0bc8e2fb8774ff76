package cachefile

import (
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
// Close once, when no other one runs.
//
// What is saved goes through a buffer of ours, with pread and pwrite. The
// copying calls of the kernel (copy_file_range, splice, sendfile) are no good
// here: between two file systems they move at most 64 KiB at a time, and what
// they move are references to the pages of the live file, so that a store
// into such a page would change what is being saved.
type File struct {
	fd     int
	dir    string
	limits Limits

	buffers sync.Pool // of *[pieces]byte

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

// unit is what every save begins at a multiple of, and pieces is how much goes
// through a buffer at once: a page, and what amortises the calls while it still
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
	fd, err := file.Open(file.Here, p.Dir, file.Write|file.Unnamed)
	if err != nil {
		return nil, problem.New(codeOf(err), p.Dir, fmt.Errorf("create a cache file: %w", err))
	}
	f := &File{fd: fd, dir: p.Dir, limits: p.Limits[i]}
	f.buffers.New = func() any { return new([pieces]byte) }
	if err := f.reserve(f.limits.Initial); err != nil {
		file.Close(fd)
		return nil, err
	}
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

// Save saves length bytes at offset of the descriptor from, or as many as there
// are before its end, and returns where they are and how many. Once it fails
// with cache-full or cache-lost it does so for ever. Any other failure is one of
// reading from: the cache file is as good as before.
func (f *File) Save(from int, offset, length int64) (at, n int64, err error) {
	at, err = f.take(length)
	if err != nil {
		return 0, 0, err
	}
	buf := f.buffers.Get().(*[pieces]byte)
	defer f.buffers.Put(buf)
	for n < length {
		piece := buf[:min(length-n, pieces)]
		got, err := file.ReadAt(from, piece, offset+n)
		if err != nil {
			f.giveBack(at, length, 0)
			return 0, 0, fmt.Errorf("read the original: %w", err)
		}
		if got == 0 {
			break
		}
		if err := f.write(piece[:got], at+n); err != nil {
			return 0, 0, err
		}
		n += int64(got)
	}
	f.giveBack(at, length, n)
	f.count(n)
	return at, n, nil
}

// SaveBytes saves p and returns where it is. It fails like Save.
func (f *File) SaveBytes(p []byte) (at int64, err error) {
	at, err = f.take(int64(len(p)))
	if err != nil {
		return 0, err
	}
	if err := f.write(p, at); err != nil {
		return 0, err
	}
	f.count(int64(len(p)))
	return at, nil
}

// ReadAt reads what was saved at a place. It reads less than asked only at the
// end of the file. A failure has the code cache-lost.
func (f *File) ReadAt(p []byte, at int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := file.ReadAt(f.fd, p[done:], at+int64(done))
		if err != nil {
			return done, f.lose(problem.New(problem.CacheLost, f.dir, fmt.Errorf("read the cache file: %w", err)))
		}
		if n == 0 {
			break
		}
		done += n
	}
	return done, nil
}

// Stats may be asked at any time.
func (f *File) Stats() Stats {
	return Stats{Used: f.used.Load(), Content: f.content.Load(), Maximum: f.limits.Maximum, Saves: f.saved.Load()}
}

// Err is nil while everything that was to be saved could be.
func (f *File) Err() error {
	if err := f.lost.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the file and gives its space back.
func (f *File) Close() error { return file.Close(f.fd) }

func (f *File) count(n int64) {
	f.saved.Add(1)
	f.content.Add(n)
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
		if length > f.limits.Maximum-at {
			return 0, f.lose(problem.Newf(problem.CacheFull, f.dir,
				"the cache file has reached its maximum of %d MiB", f.limits.Maximum>>20))
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

// lookEvery is how much is saved between two looks at the free space.
const lookEvery = 8 << 20

// leaveRoom fails when so little is left on the volume that other programs
// would soon fail to write. What is reserved is ours already. btrfs counts what
// was written only when it commits, every 30 s, so there this comes late.
func (f *File) leaveRoom(used int64) error {
	last := f.checked.Load()
	if f.limits.Keep <= 0 || used <= f.limits.Initial || used-last < lookEvery || !f.checked.CompareAndSwap(last, used) {
		return nil
	}
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(f.fd, &st); err != nil {
		return f.lose(problem.New(problem.CacheLost, f.dir, fmt.Errorf("free space: %w", err)))
	}
	if free := int64(st.Bavail) * st.Frsize; free < f.limits.Keep {
		return f.lose(problem.Newf(problem.CacheFull, f.dir,
			"only %d MiB are free on the volume of the cache file, and %d MiB are left to others", free>>20, f.limits.Keep>>20))
	}
	return nil
}

func (f *File) write(p []byte, at int64) error {
	if _, err := file.WriteAt(f.fd, p, at); err != nil {
		return f.lose(problem.New(codeOf(err), f.dir, fmt.Errorf("write the cache file at %d MiB: %w", at>>20, err)))
	}
	return nil
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
func (f *File) Room() int64 { return max(0, f.limits.Maximum-f.used.Load()) }
