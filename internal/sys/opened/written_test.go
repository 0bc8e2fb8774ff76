package opened

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Who has a file open for writing, or a part of it locked, is seen; who reads it is
// not.
func TestWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	fd := int(open(t, path, os.O_RDONLY).Fd())
	open(t, path, os.O_RDONLY)
	want := func(written, locked bool) {
		t.Helper()
		if got, err := Written(fd); err != nil || got != written {
			t.Errorf("written %t, %v; want %t", got, err, written)
		}
		if got, err := Locked(fd); err != nil || got != locked {
			t.Errorf("locked %t, %v; want %t", got, err, locked)
		}
	}
	want(false, false)
	f := open(t, path, os.O_RDWR)
	want(true, false)
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 2, Len: 1}); err != nil {
		t.Fatal(err)
	}
	want(true, true)
	f.Close()
	want(false, false)
	if err := Lend(fd); err != nil || Wanted(fd) {
		t.Errorf("lent: %v, wanted %t", err, Wanted(fd))
	}
	if err := GiveBack(fd); err != nil {
		t.Error(err)
	}
	if err := GiveBack(fd); err != nil {
		t.Errorf("once more: %v", err)
	}
	if !Wanted(fd) {
		t.Error("a lease that is not there is not wanted")
	}
}
