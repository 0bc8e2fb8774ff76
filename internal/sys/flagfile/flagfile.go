// Package flagfile is a set of numbers in memory that processes share: one adds
// to it, others look. Numbers are never taken out, and some that were not added
// may seem to be in it, because many share a bit. Whoever sees what happened
// after an Add sees the number, too: both are atomic, and in one order for all
// (sync/atomic).
package flagfile

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// There is one bit for each of so many numbers in a row, which is what inode
// numbers are for the most part, and before them a page whose first word is for
// all numbers.
const (
	bits   = 1 << 23
	header = 4096
	size   = header + bits/8
)

// seals keep whoever has the descriptor from making the file shorter, at which
// those who look would die (memfd_create(2)).
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// A File is such a set. It may be used by several goroutines, also after Close:
// those who add do not wait for anybody, so the memory goes with the last one
// who has the File.
type File struct {
	memory *os.File
	mapped []byte
}

// New makes an empty set.
func New() (*File, error) {
	fd, err := unix.MemfdCreate("stillpoint-flags", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "flags")
	err = unix.Ftruncate(fd, size)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make shared flags: %w", err), f.Close())
	}
	return mapFile(f, unix.PROT_READ|unix.PROT_WRITE)
}

// Open looks at the set behind a descriptor that another process got from
// Memory. It takes the descriptor over, and needs it no longer than that.
func Open(f *os.File) (*File, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	if err == nil && st.Size != size {
		err = fmt.Errorf("%d bytes: %w", st.Size, unix.EINVAL)
	}
	if err == nil {
		var has int
		if has, err = unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err == nil && has&seals != seals {
			err = fmt.Errorf("it can become shorter: %w", unix.EINVAL)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open shared flags: %w", err), f.Close())
	}
	flags, err := mapFile(f, unix.PROT_READ)
	if err != nil {
		return nil, err
	}
	return flags, flags.Close()
}

func mapFile(memory *os.File, prot int) (*File, error) {
	mapped, err := unix.Mmap(int(memory.Fd()), 0, size, prot, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map shared flags: %w", err), memory.Close())
	}
	f := &File{memory, mapped}
	runtime.AddCleanup(f, func(m []byte) { _ = unix.Munmap(m) }, mapped)
	return f, nil
}

// Memory is the descriptor that another process needs. It stays the File's.
func (f *File) Memory() *os.File { return f.memory }

// Close closes the descriptor. No other process can get the set after that.
func (f *File) Close() error { return f.memory.Close() }

// word is one of 32 bits.
func (f *File) word(offset uint64) *uint32 { return (*uint32)(unsafe.Pointer(&f.mapped[offset])) }

// place is the word and the bit of a number. What of it is beyond the bits
// counts, too: XFS has its groups there.
func (f *File) place(number uint64) (word *uint32, bit uint32) {
	n := (number ^ number>>23 ^ number>>46) % bits
	return f.word(header + n/32*4), 1 << (n % 32)
}

// Add adds a number.
func (f *File) Add(number uint64) {
	word, bit := f.place(number)
	if atomic.LoadUint32(word)&bit == 0 {
		atomic.OrUint32(word, bit)
	}
	runtime.KeepAlive(f)
}

// AddAll adds every number.
func (f *File) AddAll() {
	atomic.StoreUint32(f.word(0), 1)
	runtime.KeepAlive(f)
}

// Has tells whether a number was added, or may have been.
func (f *File) Has(number uint64) bool {
	word, bit := f.place(number)
	has := atomic.LoadUint32(word)&bit != 0 || atomic.LoadUint32(f.word(0)) != 0
	runtime.KeepAlive(f)
	return has
}
