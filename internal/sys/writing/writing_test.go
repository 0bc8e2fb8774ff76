package writing

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
)

// Each way writes what it says, where it says.
func TestWays(t *testing.T) {
	for typ, size := range map[string]int64{"ext4": 64 * scratch.MiB, "xfs": 320 * scratch.MiB, "btrfs": 128 * scratch.MiB} {
		t.Run(typ, func(t *testing.T) {
			v := scratch.New(t, typ, size)
			for _, w := range ways(t) {
				err := try(t, v.Dir, w)
				if errors.Is(err, errors.ErrUnsupported) {
					if w.everywhere || typ != "ext4" {
						t.Errorf("%s is not supported", w.name)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", w.name, err)
				}
			}
		})
	}
}

// A way puts the second block of the file b into the second block of a.
type way struct {
	name       string
	everywhere bool
	do         func(a, b int, p []byte) error
}

const block = 4096

func try(t *testing.T, dir string, w way) error {
	t.Helper()
	content := func(seed byte) []byte { return bytes.Repeat([]byte{seed}, 4*block) }
	var fds [2]int
	for i, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content(name[0]), 0o600); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	if err := w.do(fds[0], fds[1], content('b')[:block]); err != nil {
		return err
	}
	want := content('a')
	copy(want[block:], content('b')[:block])
	if got, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: not what was wanted, %v", w.name, err)
	}
	return nil
}

func ways(t *testing.T) []way {
	ring, err := NewRing(false)
	if err != nil {
		t.Fatal(err)
	}
	polled, err := NewRing(true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(ring.Close(), polled.Close()); err != nil {
			t.Error(err)
		}
	})
	return []way{
		{"copy_file_range", true, func(a, b int, _ []byte) error { return CopyRange(a, block, b, block, block) }},
		{"clone range", false, func(a, b int, _ []byte) error { return CloneRange(a, block, b, block, block) }},
		{"clone", false, func(a, b int, p []byte) error {
			var first [4 * block]byte
			if _, err := unix.Pread(a, first[:], 0); err != nil {
				return err
			}
			copy(first[block:], p)
			if _, err := unix.Pwrite(b, first[:], 0); err != nil {
				return err
			}
			return Clone(a, b)
		}},
		{"dedupe", false, func(a, b int, p []byte) error {
			if _, err := unix.Pwrite(a, p, block); err != nil {
				return err
			}
			return Dedupe(a, block, b, block, block)
		}},
		{"aio", true, func(a, _ int, p []byte) error { return Asynchronously(a, p, block) }},
		{"ring", true, func(a, _ int, p []byte) error { return ring.Write(a, p, block, 0) }},
		{"ring, async", true, func(a, _ int, p []byte) error { return ring.Write(a, p, block, Async) }},
		{"ring, polled", true, func(a, _ int, p []byte) error { return polled.Write(a, p, block, 0) }},
		{"ring, registered", true, func(a, _ int, p []byte) error {
			r, err := NewRing(false)
			if err != nil {
				return err
			}
			return errors.Join(r.Register(int32(a)), r.Write(0, p, block, Registered), r.Close())
		}},
		{"ring, splice", true, func(a, _ int, p []byte) error {
			var pipe [2]int
			if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
				return err
			}
			defer unix.Close(pipe[0])
			defer unix.Close(pipe[1])
			if _, err := unix.Write(pipe[1], p); err != nil {
				return err
			}
			return ring.Splice(a, block, pipe[0], block, 0)
		}},
		{"ring, fallocate and truncate", true, func(a, _ int, p []byte) error {
			if err := ring.Fallocate(a, unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, block, block, 0); err != nil {
				return err
			}
			zeros := make([]byte, block)
			if n, err := unix.Pread(a, zeros, block); n != block || err != nil || !bytes.Equal(zeros, make([]byte, block)) {
				t.Errorf("there is no hole: %d, %v", n, err)
			}
			if err := ring.Truncate(a, block, 0); err != nil {
				return err
			}
			_, err := unix.Pwrite(a, append(bytes.Clone(p), bytes.Repeat([]byte{'a'}, 2*block)...), block)
			return err
		}},
		{"memory", true, func(a, _ int, p []byte) error {
			m, err := unix.Mmap(a, 0, 4*block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Munmap(m) }()
			return IntoMemory(m[block:], p)
		}},
	}
}

func TestExchangeNames(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	for _, p := range []string{a, b} {
		if err := os.WriteFile(p, []byte(p), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := ExchangeNames(a, b); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(a); err != nil || string(got) != b {
		t.Errorf("a holds %q, %v", got, err)
	}
}
