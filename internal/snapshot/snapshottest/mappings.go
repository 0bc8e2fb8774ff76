package snapshottest

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"stillpoint/internal/sys/writing"
)

const readWrite = syscall.PROT_READ | syscall.PROT_WRITE

// A store changes a file of the size through a shared mapping of it.
type store struct {
	protection int // of the mapping when it is made
	do         func(c *C, m []byte) error
}

// onMappings is a change of some files, of each through a mapping. A file is
// closed as soon as it is mapped.
func onMappings(do map[string]store) func(*C, string) func() func() {
	return func(c *C, dir string) func() func() {
		for name := range do {
			c.write(filepath.Join(dir, name), pattern(size, 9))
		}
		return func() func() {
			mappings := map[string][]byte{}
			for name, s := range do {
				mappings[name] = c.mapped(filepath.Join(dir, name), s.protection)
			}
			return func() {
				for name, m := range mappings {
					if err := do[name].do(c, m); err != nil {
						c.Fatalf("%s: %v", name, err)
					}
				}
			}
		}
	}
}

func (c *C) mapped(path string, protection int) []byte {
	c.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	c.must(err)
	defer f.Close()
	m, err := syscall.Mmap(int(f.Fd()), 0, size, protection, syscall.MAP_SHARED)
	c.must(err)
	c.Cleanup(func() { _ = syscall.Munmap(m) })
	return m
}

// twoPages stores to two pages.
func twoPages(_ *C, m []byte) error {
	copy(m[8192:], pattern(4096, 80))
	copy(m[size-100:], pattern(100, 81))
	return nil
}

func changesOfMappings() []change {
	const remove = 9 // MADV_REMOVE, asm-generic/mman-common.h
	return []change{
		{"map-before", dirtyMapping},
		{"map-after", onFile(os.O_RDWR, func(c *C, f *os.File) error {
			m, err := syscall.Mmap(int(f.Fd()), 0, size, readWrite, syscall.MAP_SHARED)
			c.must(err)
			return errors.Join(twoPages(c, m), syscall.Munmap(m))
		})},
		{"map-closed", onMappings(map[string]store{
			"stored": {readWrite, twoPages},
			"protected": {syscall.PROT_READ, func(c *C, m []byte) error {
				c.must(syscall.Mprotect(m, readWrite))
				return twoPages(c, m)
			}},
			"removed": {readWrite, func(_ *C, m []byte) error { return syscall.Madvise(m[64<<10:128<<10], remove) }},
			"by-kernel": {readWrite, func(_ *C, m []byte) error { // read(2) stores what it reads
				return throughPipe(func(pipe int) error {
					_, err := syscall.Read(pipe, m[50_000:60_000])
					return err
				})
			}},
			"by-process": {readWrite, func(_ *C, m []byte) error { return writing.IntoMemory(m[100_000:], pattern(5000, 82)) }},
		})},
	}
}

// dirtyMapping is a store to pages of which one is writable at the instant,
// since it was stored to just before.
func dirtyMapping(c *C, dir string) func() func() {
	path := filepath.Join(dir, "file")
	c.write(path, pattern(size, 9))
	return func() func() {
		m := c.mapped(path, readWrite)
		copy(m[8192:], "dirty before")
		c.must(syncDir(path))
		copy(m[8192:], "dirty again!")
		return func() { c.must(twoPages(c, m)) }
	}
}
