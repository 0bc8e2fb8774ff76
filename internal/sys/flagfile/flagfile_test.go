package flagfile

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// again opens the same set as another process would.
func again(t *testing.T, f *File) *File {
	t.Helper()
	fd, err := unix.Dup(int(f.Memory().Fd()))
	if err != nil {
		t.Fatal(err)
	}
	other, err := Open(os.NewFile(uintptr(fd), "again"))
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func newFile(t *testing.T) *File {
	t.Helper()
	f, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// What one adds the other sees, neighbours are told apart, and all are all.
func TestSharing(t *testing.T) {
	f := newFile(t)
	other := again(t, f)
	for _, n := range []uint64{0, 1, 2, 31, 32, 12_345, bits - 1, 1<<32 + 7, 1 << 63} {
		if other.Has(n) {
			t.Errorf("%d is there before it was added", n)
		}
		f.Add(n)
		if !other.Has(n) || !f.Has(n) {
			t.Errorf("%d is not there", n)
		}
	}
	for _, n := range []uint64{3, 30, 33, 12_344, 12_346} {
		if other.Has(n) {
			t.Errorf("%d is there without being added", n)
		}
	}
	f.AddAll()
	if !other.Has(3) {
		t.Error("all are not all")
	}
}

// The memory can neither become shorter nor be something else.
func TestSealed(t *testing.T) {
	f := newFile(t)
	if err := unix.Ftruncate(int(f.Memory().Fd()), 0); err == nil {
		t.Error("it was made shorter")
	}
	plain, err := os.Create(t.TempDir() + "/plain")
	if err != nil {
		t.Fatal(err)
	}
	if err := plain.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(plain); err == nil {
		t.Error("a file that can become shorter was mapped")
	}
}

// Who still has it can add to it, whatever the collector does.
func TestKept(t *testing.T) {
	f := newFile(t)
	other := again(t, f)
	for range 100 {
		newFile(t)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.GC()
	f.Add(5)
	if !other.Has(5) {
		t.Error("5 is not there")
	}
}
