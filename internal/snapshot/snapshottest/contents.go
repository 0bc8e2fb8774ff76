package snapshottest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/writing"
)

// onFile is a change of a file, by a descriptor.
func onFile(flags int, do func(c *C, f *os.File) error) func(*C, string) func() func() {
	return onFiles(flags, map[string]func(c *C, f *os.File) error{"file": do})
}

// onFiles is a change of some files, of each in its way. Each has a hole in
// the middle. What the file system does not have is left out, as long
// as something remains.
func onFiles(flags int, do map[string]func(c *C, f *os.File) error) func(*C, string) func() func() {
	return func(c *C, dir string) func() func() {
		for name := range do {
			c.holed(filepath.Join(dir, name))
		}
		return func() func() {
			open := map[string]*os.File{}
			for name := range do {
				f, err := os.OpenFile(filepath.Join(dir, name), flags, 0)
				if flags&syscall.O_DIRECT != 0 && errors.Is(err, syscall.EINVAL) {
					c.Skipf("skipped: the file system of %s has no O_DIRECT", dir)
				}
				c.must(err)
				c.Cleanup(func() { f.Close() })
				open[name] = f
			}
			return func() {
				for name, f := range open {
					err := do[name](c, f)
					switch {
					case err == nil:
					case len(do) > 1 && errors.Is(err, errors.ErrUnsupported):
						c.Logf("%s is left out: %v", name, err)
					default:
						c.Fatalf("%s: %v", name, err)
					}
				}
			}
		}
	}
}

const holeAt, holeSize = size / 2, size / 4

func (c *C) holed(path string) {
	c.Helper()
	f, err := os.Create(path)
	c.must(err)
	defer f.Close()
	b := pattern(size, 4)
	c.must(f.Truncate(size)) // first, or XFS reserves space for the hole, too
	_, err = f.Write(b[:holeAt])
	c.must(err)
	_, err = f.WriteAt(b[holeAt+holeSize:], holeAt+holeSize)
	c.must(err)
}

// fallocate(2), linux/falloc.h.
const (
	keepSize = 1 << iota
	punchHole
	_
	collapse
	zeroRange
	insert
	unshare
)

func allocate(mode uint32, offset, length int64) func(*C, *os.File) error {
	return func(_ *C, f *os.File) error { return syscall.Fallocate(int(f.Fd()), mode, offset, length) }
}

func writeAt(offset int64, n int) func(*C, *os.File) error {
	return func(_ *C, f *os.File) error {
		_, err := f.WriteAt(pattern(n, 77), offset)
		return err
	}
}

// fromOther is a change by what another file holds.
func fromOther(do func(f, other int) error) func(*C, *os.File) error {
	return from(pattern(size, 60), do)
}

// from makes the other file beside the one that is changed.
func from(content []byte, do func(f, other int) error) func(*C, *os.File) error {
	return func(c *C, f *os.File) error {
		path := f.Name() + "-source"
		c.write(path, content)
		other, err := os.OpenFile(path, os.O_RDWR, 0)
		c.must(err)
		defer other.Close()
		return do(int(f.Fd()), int(other.Fd()))
	}
}

// pipeSize is what a pipe of the kernel's usual size holds.
const pipeSize = 64 << 10

// throughPipe calls do with the end of a pipe that is full.
func throughPipe(do func(pipe int) error) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	if _, err := w.Write(pattern(pipeSize, 61)); err != nil {
		return err
	}
	return do(int(r.Fd()))
}

func changesOfContent() []change {
	type deeds = map[string]func(c *C, f *os.File) error
	return []change{
		{"write", onFiles(os.O_RDWR, deeds{
			"inside": writeAt(123_456, 10_000),
			"all":    writeAt(0, size),
			"hole":   writeAt(holeAt+10_000, 10_000),
			"reopened": func(_ *C, f *os.File) error { // by the name that the descriptor has in /proc
				again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				defer again.Close()
				_, err = again.WriteAt(pattern(5000, 71), 70_000)
				return err
			},
			"many": func(_ *C, f *os.File) error {
				for at := int64(0); at < size; at += 100_000 {
					if _, err := f.WriteAt(pattern(1000, 72), at); err != nil {
						return err
					}
				}
				return nil
			},
		})},
		{"append", onFile(os.O_RDWR|os.O_APPEND, func(_ *C, f *os.File) error {
			_, err := f.Write(pattern(50_000, 78))
			return err
		})},
		{"truncate", onFiles(os.O_RDWR, deeds{
			"shrink": func(_ *C, f *os.File) error { return f.Truncate(5) },
			"grow":   func(_ *C, f *os.File) error { return f.Truncate(3 * size) },
			"shrink-and-grow": func(_ *C, f *os.File) error {
				return errors.Join(f.Truncate(100_000), f.Truncate(2*size))
			},
			"shrink-and-write": func(c *C, f *os.File) error {
				return errors.Join(f.Truncate(0), writeAt(0, 2*size)(c, f))
			},
			"far":     writeAt(3*size, 1000),
			"by-name": func(_ *C, f *os.File) error { return os.Truncate(f.Name(), 70_000) },
		})},
		{"open-truncating", byName(func(in func(string) string) error {
			return os.WriteFile(in("file"), nil, 0)
		})},
		{"direct", onFiles(os.O_RDWR|syscall.O_DIRECT, deeds{
			"write": func(c *C, f *os.File) error {
				_, err := f.WriteAt(c.aligned(8192, 79), 64<<10)
				return err
			},
			"aio": func(c *C, f *os.File) error {
				return writing.Asynchronously(int(f.Fd()), c.aligned(8192, 70), 64<<10)
			},
		})},
		{"fallocate", onFiles(os.O_RDWR, deeds{
			"extend":         allocate(0, size, size),
			"fill":           allocate(0, 0, size),
			"keep-size":      allocate(keepSize, size, size),
			"punch":          allocate(punchHole|keepSize, 64<<10, 256<<10),
			"punch-odd":      allocate(punchHole|keepSize, 70_001, 5),
			"zero":           allocate(zeroRange, 64<<10, 2*size),
			"zero-keep-size": allocate(zeroRange|keepSize, 64<<10, 2*size),
			"collapse":       allocate(collapse, 64<<10, 64<<10),
			"insert":         allocate(insert, 64<<10, 64<<10),
			"unshare":        allocate(unshare, 0, size),
		})},
		{"copy", onFiles(os.O_RDWR, deeds{
			"sendfile": fromOther(func(f, other int) error {
				at := int64(100_000)
				if _, err := syscall.Seek(f, 50_000, io.SeekStart); err != nil {
					return err
				}
				_, err := syscall.Sendfile(f, other, &at, 300_000)
				return err
			}),
			"splice": func(_ *C, f *os.File) error {
				return throughPipe(func(pipe int) error {
					at := int64(50_000)
					_, err := syscall.Splice(pipe, nil, int(f.Fd()), &at, pipeSize, 0)
					return err
				})
			},
			"copy-range":  fromOther(func(f, other int) error { return writing.CopyRange(f, 50_000, other, 100_000, 300_000) }),
			"copy-within": func(_ *C, f *os.File) error { return writing.CopyRange(int(f.Fd()), 0, int(f.Fd()), holeAt, holeAt) },
			"clone":       fromOther(writing.Clone),
			"clone-range": fromOther(func(f, other int) error { return writing.CloneRange(f, 64<<10, other, 128<<10, 256<<10) }),
			"dedupe-and-write": from(pattern(size, 4), func(f, same int) error {
				if err := writing.Dedupe(f, 0, same, 0, 256<<10); err != nil {
					return err
				}
				_, err := syscall.Pwrite(f, pattern(4096, 73), 4096)
				return err
			}),
		})},
		{"aio", onFiles(os.O_RDWR, deeds{
			"buffered": func(_ *C, f *os.File) error { return writing.Asynchronously(int(f.Fd()), pattern(10_000, 74), 50_000) },
			"at-end":   func(_ *C, f *os.File) error { return writing.Asynchronously(int(f.Fd()), pattern(10_000, 74), size) },
		})},
		{"io_uring", ringChanges},
		{"tmpfile", func(c *C, dir string) func() func() {
			return func() func() {
				fd, err := file.Open(file.Here, dir, file.Write|file.Unnamed)
				c.must(err)
				c.Cleanup(func() { _ = file.Close(fd) })
				return func() {
					_, err := file.WriteAt(fd, pattern(size, 75), 0)
					c.must(err)
					c.must(file.Link(fd, file.Here, filepath.Join(dir, "linked")))
				}
			}
		}},
	}
}

// ringChanges are changes by io_uring. The ring is made, and files are
// registered, when they are opened.
func ringChanges(c *C, dir string) func() func() {
	in := func(name string) string { return filepath.Join(dir, name) }
	names := []string{"buffered", "async", "polled", "direct", "splice", "allocate", "truncate", "registered", "registered-direct"}
	for _, n := range names {
		c.holed(in(n))
	}
	return func() func() {
		ring, err := writing.NewRing(false)
		c.must(err)
		polled, err := writing.NewRing(true)
		c.must(err)
		c.Cleanup(func() { c.must(errors.Join(ring.Close(), polled.Close())) })
		fds := map[string]int{}
		for _, n := range names {
			flags := os.O_RDWR
			if n == "direct" || n == "registered-direct" {
				flags |= syscall.O_DIRECT
			}
			fd, err := syscall.Open(in(n), flags|syscall.O_CLOEXEC, 0)
			if errors.Is(err, syscall.EINVAL) { // no O_DIRECT there
				fd, err = syscall.Open(in(n), os.O_RDWR|syscall.O_CLOEXEC, 0)
			}
			c.must(err)
			fds[n] = fd
		}
		c.must(ring.Register(int32(fds["registered"]), int32(fds["registered-direct"])))
		c.must(errors.Join(syscall.Close(fds["registered"]), syscall.Close(fds["registered-direct"])))
		delete(fds, "registered")
		delete(fds, "registered-direct")
		c.Cleanup(func() {
			for _, fd := range fds {
				_ = syscall.Close(fd)
			}
		})
		truncates, err := ring.Truncates()
		c.must(err)
		return func() {
			b := c.aligned(8192, 76)
			if truncates {
				c.must(ring.Truncate(fds["truncate"], 5000, 0))
			} else {
				c.Logf("ftruncate is left out: this kernel's io_uring does not list it (Linux 6.9 does)")
			}
			c.must(errors.Join(
				ring.Write(fds["buffered"], b[:5000], 50_000, 0),
				ring.Write(fds["async"], b[:5000], 50_000, writing.Async),
				polled.Write(fds["polled"], b[:5000], 50_000, 0),
				ring.Write(fds["direct"], b, 64<<10, 0),
				ring.Fallocate(fds["allocate"], punchHole|keepSize, 64<<10, 64<<10, 0),
				ring.Write(0, b[:5000], 50_000, writing.Registered),
				ring.Write(1, b, 64<<10, writing.Registered),
				throughPipe(func(pipe int) error { return ring.Splice(fds["splice"], 50_000, pipe, pipeSize, 0) }),
			))
		}
	}
}

// aligned is a pattern in memory as O_DIRECT needs it.
func (c *C) aligned(n int, seed byte) []byte {
	c.Helper()
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	c.must(err)
	c.Cleanup(func() { _ = syscall.Munmap(b) })
	copy(b, pattern(n, seed))
	return b
}
