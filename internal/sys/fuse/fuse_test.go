package fuse

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRefusals(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: mounting needs root, and this is not root")
	}
	if err := Abort(1<<20 - 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("abort what is not there: %v", err)
	}
	if root, err := Mount(0, Options{Source: "x", Subtype: "x", MaxRead: 4096}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("mounted without a connection: %v, %v", root, err)
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := Poll(dir, "missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("poll what is not there: %v", err)
	}
}

// A connection that nobody answers on can be ended by its number.
func TestAbort(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: mounting needs root, and this is not root")
	}
	fd, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	root, err := Mount(fd, Options{Source: "x", Subtype: "x", MaxRead: 4096})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	number, err := Number(root)
	if err != nil || number == 0 {
		t.Fatal(number, err)
	}
	waits := make(chan error, 1)
	go func() {
		var st unix.Stat_t
		waits <- unix.Fstatat(int(root.Fd()), "name", &st, 0)
	}()
	if err := Abort(number); err != nil {
		t.Fatal(err)
	}
	if err := <-waits; err == nil {
		t.Error("somebody answered")
	}
	if n, err := unix.Read(fd, make([]byte, 1<<17)); !errors.Is(err, unix.ENODEV) {
		t.Errorf("the connection still gives %d bytes, %v", n, err)
	}
}
