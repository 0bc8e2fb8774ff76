package index

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// mapped opens and maps a file of one page and closes it. store stores to the
// mapping, which makes no event.
func mapped(t *testing.T, path string) (store func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(m) })
	return func() {
		if err := unix.Msync(m, unix.MS_SYNC); err != nil { // or the next store moves no time
			t.Fatal(err)
		}
		m[0]++
	}
}

// What makes no event is seen where the caller says so, and where it was opened
// since Watchful.
func TestWithoutEvent(t *testing.T) {
	everyFS(t, func(t *testing.T, v *volume) {
		old := mapped(t, v.path("old"))
		told := mapped(t, v.path("told"))
		if err := os.WriteFile(v.path("opened"), make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		b := build(t, v, Options{}, ".")
		settle := func() {
			t.Helper()
			if err := b.Settle(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
		settle()
		if err := b.Watchful(); err != nil {
			t.Fatal(err)
		}
		opened := mapped(t, v.path("opened"))
		settle() // which does not take the note of the opening
		old()
		told()
		opened()
		var st unix.Stat_t
		if err := unix.Stat(v.path("told"), &st); err != nil {
			t.Fatal(err)
		}
		v.frozen(t, func() {
			x, err := b.Finish([]uint64{st.Ino})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { x.Close() })
			got, want := flatten(t, x), v.walk(t, []string{"."})
			if got["old"] == want["old"] {
				t.Error("a store to a mapping was seen though nobody told: this test tests nothing")
			}
			delete(got, "old")
			delete(want, "old")
			check(t, got, want)
		})
	})
}

// A number that comes back for another file is that other file.
func TestNumberReused(t *testing.T) {
	// Each makes a file of another type that has its number alone for itself
	// as soon as the earlier one is gone.
	kinds := map[string]func(path string) error{
		"file":    func(path string) error { return os.WriteFile(path, []byte(path), 0o600) },
		"fifo":    func(path string) error { return unix.Mkfifo(path, 0o600) },
		"symlink": func(path string) error { return os.Symlink(path, path) },
		"directory": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(path+"/inside", nil, 0o600))
		},
	}
	number := func(path string) uint64 {
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil {
			return 0
		}
		return st.Ino
	}
	everyFS(t, func(t *testing.T, v *volume) {
		count := 0
		defer func() {
			if count < 8 { // of 32; a directory's may lie elsewhere
				t.Errorf("%d numbers came back", count)
			}
		}()
		for was, make := range kinds {
			for is, remake := range kinds {
				for _, settled := range []bool{false, true} {
					clean(t, v)
					if err := errors.Join(os.Mkdir(v.path("sel"), 0o700), make(v.path("sel/x"))); err != nil {
						t.Fatal(err)
					}
					n := number(v.path("sel/x"))
					b := build(t, v, Options{}, "sel")
					reused := false
					for range 300 {
						if err := errors.Join(os.RemoveAll(v.path("sel/x")), os.RemoveAll(v.path("sel/y")), remake(v.path("sel/y"))); err != nil {
							t.Fatal(err)
						}
						if reused = number(v.path("sel/y")) == n; reused {
							break
						}
					}
					if reused {
						count++
					}
					if settled {
						if err := b.Settle(t.Context(), 0); err != nil {
							t.Fatal(err)
						}
					}
					x := finish(t, v, b, nobody, "sel")
					if err := x.Close(); err != nil {
						t.Error(err)
					}
					if t.Failed() {
						t.Fatalf("%s after %s, settled %t", is, was, settled)
					}
				}
			}
		}
	})
}

// What is damaged is told from what is wrong with us.
func TestDamageIsOfOneFile(t *testing.T) {
	for _, err := range []error{syscall.EIO, syscall.EUCLEAN, syscall.EBADMSG} {
		if !isDamage(err) {
			t.Errorf("%v is of one file", err)
		}
	}
	for _, err := range []error{syscall.EMFILE, syscall.ENOMEM, syscall.EACCES} {
		if isDamage(err) {
			t.Errorf("%v is not of one file", err)
		}
	}
	b := &Builder{faults: map[place]error{}}
	b.fault(place{1, "x"}, syscall.EIO)
	b.fault(place{1, "y"}, syscall.EIO)
	b.fault(place{1, "x"}, nil)
	if len(b.faults) != 1 {
		t.Errorf("%v", b.faults)
	}
}
