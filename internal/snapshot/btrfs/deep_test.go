package btrfs

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/btrfs"
)

// bury makes an empty subvolume below n directories that are called name.
func bury(t *testing.T, dir string, n int, name string) {
	t.Helper()
	at, err := os.Open(dir)
	must(t, err)
	for range n {
		must(t, syscall.Mkdirat(int(at.Fd()), name, 0o755))
		next, err := syscall.Openat(int(at.Fd()), name, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		must(t, err)
		at.Close()
		at = os.NewFile(uintptr(next), name)
	}
	defer at.Close()
	must(t, btrfs.Create(at, "sub"))
}

// A subvolume that no path leads to, as any user can make one, is a gap where it
// may be wanted, and nobody's trouble elsewhere.
func TestTooDeep(t *testing.T) {
	long := strings.Repeat("n", 250)
	for what, test := range map[string]struct {
		n    int
		name string
		gap  string // "" for that of what holds it
	}{
		"long":           {20, long, "user" + strings.Repeat("/"+long, 20) + "/sub"},
		"too many names": {2100, "d", "."},
	} {
		t.Run(what, func(t *testing.T) {
			d := newDisk(t)
			d.create("@", "@/a")
			must(t, os.Mkdir(d.in("@/user"), 0o755))
			bury(t, d.in("@/user"), test.n, test.name)
			v := d.mounted("@")
			s := take(t, of(v, "."))[0]
			shows(t, s, ". a", fmt.Sprint(test.gap, ":", problem.SnapshotFailed))
			reads(t, s, map[string]string{".": "@", "a": "@/a"})

			s = take(t, of(v, "a"))[0]
			shows(t, s, "a", "")

			// Another one, after Prepare.
			pending := prepare(t, of(v, "in", "a"))
			must(t, os.Mkdir(d.in("@/more"), 0o755))
			bury(t, d.in("@/more"), test.n, test.name)
			s = commit(t, pending)[0]
			if parts(s) != ". a" || s.Err() != nil {
				t.Errorf("parts %q, %v", parts(s), s.Err())
			}
			must(t, s.Release(t.Context()))
		})
	}
}
