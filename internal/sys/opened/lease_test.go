package opened

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseLeases(t *testing.T) {
	got := parseLeases([]byte(`1: FLOCK  ADVISORY  WRITE 25515 fe:00:9978466 0 EOF
1: -> FLOCK  ADVISORY  WRITE 26314 fe:00:9978466 0 EOF
2: LEASE  ACTIVE    WRITE 1234 fe:0a:56 0 EOF
3: LEASE  BREAKING  READ -1 08:01:57 0 EOF
4: DELEG  ACTIVE    WRITE 0 08:01:58 0 EOF
5: LEASE  ACTIVE    WRITE 12 08:01
`))
	want := []Lease{{1234, unix.Mkdev(0xfe, 10), 56, true}, {0, unix.Mkdev(8, 1), 57, false}, {0, unix.Mkdev(8, 1), 58, true}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestLeases(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	all, err := Leases()
	if err != nil {
		t.Fatal(err)
	}
	if want := (Lease{os.Getpid(), st.Dev, st.Ino, true}); !slices.Contains(all, want) {
		t.Errorf("found %+v, want %+v among them", all, want)
	}
}
