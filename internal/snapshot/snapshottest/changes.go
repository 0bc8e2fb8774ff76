package snapshottest

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A change is something that happens to a volume after the snapshot and must
// not show in it. before makes what it works on, in a directory of its own.
type change struct {
	name   string
	before func(c *C, dir string) (after func())
}

// changeChecks has one check per change, "later-NAME".
func changeChecks() []check {
	var cs []check
	for _, ch := range changes() {
		cs = append(cs, check{"later-" + ch.name, func(c *C) { checkChange(c, ch) }})
	}
	return cs
}

func checkChange(c *C, ch change) {
	vs := c.host.Volumes(c, 1)
	dir := filepath.Join(vs[0].Dir, "changes")
	c.must(os.Mkdir(dir, 0o755))
	c.write(filepath.Join(dir, "untouched"), pattern(100_000, 3))
	after := ch.before(c, dir)
	c.must(syncDir(dir))
	want := c.describe(dir)
	s := c.take(c.host.New(c), vs)[0]
	c.same("snapshot", c.describe(s.Root()+"/changes"), want)
	after()
	c.same("snapshot after the change", c.describe(s.Root()+"/changes"), want)
}

const size = 1 << 20

// onFile is a change of an open file of 1 MiB that was opened before the
// snapshot.
func onFile(flags int, do func(c *C, f *os.File) error) func(*C, string) func() {
	return func(c *C, dir string) func() {
		path := filepath.Join(dir, "file")
		c.write(path, pattern(size, 4))
		f, err := os.OpenFile(path, flags, 0)
		c.must(err)
		c.Cleanup(func() { f.Close() })
		return func() {
			c.must(do(c, f))
			c.must(f.Sync())
		}
	}
}

// byName is a change of names, or of a file by its name.
func byName(do func(in func(string) string) error) func(*C, string) func() {
	return func(c *C, dir string) func() {
		in := func(name string) string { return filepath.Join(dir, name) }
		c.write(in("file"), pattern(size, 5))
		c.write(in("other"), pattern(1000, 6))
		c.must(os.MkdirAll(in("full/sub"), 0o755))
		c.write(in("full/sub/inner"), []byte("inner"))
		c.must(os.Mkdir(in("empty"), 0o755))
		return func() {
			c.must(do(in))
			c.must(syncDir(dir))
		}
	}
}

func changes() []change {
	return []change{
		{"write", onFile(os.O_RDWR, func(_ *C, f *os.File) error {
			_, err := f.WriteAt(pattern(10_000, 77), 123_456)
			return err
		})},
		{"append", onFile(os.O_RDWR|os.O_APPEND, func(_ *C, f *os.File) error {
			_, err := f.Write(pattern(50_000, 78))
			return err
		})},
		{"truncate", onFile(os.O_RDWR, func(_ *C, f *os.File) error { return f.Truncate(5) })},
		{"open-truncating", byName(func(in func(string) string) error {
			return os.WriteFile(in("file"), nil, 0)
		})},
		{"map-before", mapped(true)},
		{"map-after", mapped(false)},
		{"direct", direct},
		{"punch", onFile(os.O_RDWR, func(_ *C, f *os.File) error {
			const keepSize, punch = 1, 2 // linux/falloc.h
			return syscall.Fallocate(int(f.Fd()), keepSize|punch, 64<<10, 256<<10)
		})},
		{"rename-over", byName(func(in func(string) string) error { return os.Rename(in("other"), in("file")) })},
		{"unlink", byName(func(in func(string) string) error { return os.Remove(in("file")) })},
		{"link", byName(func(in func(string) string) error { return os.Link(in("file"), in("link")) })},
		{"chmod", byName(func(in func(string) string) error { return os.Chmod(in("file"), os.ModeSetuid|0o700) })},
		{"utimes", byName(func(in func(string) string) error {
			return os.Chtimes(in("file"), time.Unix(1, 1), time.Unix(1, 1))
		})},
		{"xattr", func(c *C, dir string) func() {
			path := filepath.Join(dir, "file")
			c.write(path, pattern(100, 7))
			c.xattr(path, "user.kept", "old")
			return func() {
				c.xattr(path, "user.kept", "new")
				c.xattr(path, "user.added", "1")
			}
		}},
		{"chown", func(c *C, dir string) func() {
			path := filepath.Join(dir, "file")
			c.write(path, pattern(100, 8))
			return func() {
				err := os.Lchown(path, 4242, 4343)
				if c.isRoot() || !errors.Is(err, os.ErrPermission) {
					c.must(err)
				}
			}
		}},
		{"mkdir", byName(func(in func(string) string) error { return os.MkdirAll(in("new/sub"), 0o755) })},
		{"rmdir", byName(func(in func(string) string) error { return os.Remove(in("empty")) })},
		{"rename-directory", byName(func(in func(string) string) error { return os.Rename(in("full"), in("empty/moved")) })},
		{"remove-tree", byName(func(in func(string) string) error { return os.RemoveAll(in("full")) })},
	}
}

// mapped is a store into a shared mapping, made before or after the snapshot
// of a file opened before.
func mapped(early bool) func(*C, string) func() {
	return func(c *C, dir string) func() {
		path := filepath.Join(dir, "file")
		c.write(path, pattern(size, 9))
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		c.must(err)
		var m []byte
		mmap := func() {
			m, err = syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
			c.must(err)
		}
		c.Cleanup(func() {
			_ = syscall.Munmap(m)
			f.Close()
		})
		if early {
			mmap()
			copy(m[8192:], "dirty before") // its page is writable by now
			c.must(f.Sync())
			copy(m[8192:], "dirty again!")
		}
		return func() {
			if !early {
				mmap()
			}
			copy(m[8192:], pattern(4096, 80))
			copy(m[size-100:], pattern(100, 81))
			c.must(f.Sync())
		}
	}
}

// direct is a write past the page cache, where the file system has that.
func direct(c *C, dir string) func() {
	path := filepath.Join(dir, "file")
	c.write(path, pattern(size, 10))
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_DIRECT, 0)
	if errors.Is(err, syscall.EINVAL) {
		c.Skipf("skipped: the file system of %s has no O_DIRECT", dir)
	}
	c.must(err)
	c.Cleanup(func() { f.Close() })
	return func() {
		b := c.aligned(8192)
		copy(b, pattern(8192, 79))
		_, err := f.WriteAt(b, 64<<10)
		c.must(err)
		c.must(f.Sync())
	}
}

// aligned is memory as O_DIRECT needs it.
func (c *C) aligned(n int) []byte {
	c.Helper()
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	c.must(err)
	c.Cleanup(func() { _ = syscall.Munmap(b) })
	return b
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
