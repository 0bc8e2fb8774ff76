package cow

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A core dump takes the place of an older one, which the snapshot has.
func TestCoreDump(t *testing.T) {
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil || strings.ContainsAny(string(pattern), "|@/") {
		t.Skipf("skipped: core dumps go elsewhere here (%q)", pattern)
	}
	each(t, func(t *testing.T, r *rig) {
		original := map[string][]byte{"core": bytes.Repeat([]byte("c"), waySize)}
		r.must(os.WriteFile(r.path("core"), original["core"], 0o600))
		s := r.take(nil)
		_ = exec.Command("sh", "-c", `cd "$1"; ulimit -c unlimited; sh -c 'kill -SEGV $$'`, "sh", r.dir).Run()
		live, err := os.ReadFile(r.path("core"))
		r.must(err)
		if bytes.Equal(live, original["core"]) {
			t.Error("no core was dumped")
		}
		r.unmixed(s, original, true)
	})
}

// Process accounting appends to its file from within the kernel.
func TestAccounting(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		originals := map[string][]byte{}
		account := func(name string) {
			r.must(unix.Acct(r.path(name)))
			r.must(exec.Command("true").Run())
		}
		for _, name := range []string{"before", "after"} {
			originals[name] = bytes.Repeat([]byte("a"), 5000)
			r.must(os.WriteFile(r.path(name), originals[name], 0o600))
		}
		stop := func() { _, _, _ = unix.Syscall(unix.SYS_ACCT, 0, 0, 0) }
		t.Cleanup(stop)
		r.must(unix.Acct(r.path("before")))
		s := r.take(nil)
		r.must(exec.Command("true").Run())
		account("after")
		stop()
		b, err := os.ReadFile(r.path("before")) // with all that ended before the instant
		r.must(err)
		shown, err := os.ReadFile(filepath.Join(s.Root(), "before"))
		if err != nil && !errors.Is(err, syscall.EBADMSG) || err == nil && !bytes.HasPrefix(b, shown) {
			t.Errorf("the file of accounts reads %d bytes: %v", len(shown), err)
		}
		delete(originals, "before")
		r.unmixed(s, originals, false)
	})
}

// A file without a name is given one after the instant: none in the snapshot.
func TestLinkedLater(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		open := func() *os.File {
			f, err := os.OpenFile(r.dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
			r.must(err)
			t.Cleanup(func() { f.Close() })
			_, err = f.WriteString("content")
			r.must(err)
			return f
		}
		before := open()
		var between *os.File
		s := r.take(func() { between = open() })
		for i, f := range []*os.File{before, between, open()} {
			r.must(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, r.path(fmt.Sprint("linked", i)), unix.AT_SYMLINK_FOLLOW))
			_, err := f.WriteAt([]byte("CONTENT"), 0)
			r.must(err)
		}
		names, err := os.ReadDir(s.Root())
		r.must(err)
		for _, n := range names {
			if strings.HasPrefix(n.Name(), "linked") {
				t.Errorf("%s came into being", n.Name())
			}
		}
		r.must(s.Err())
	})
}

// A swap file is written to past the file system.
func TestSwapFile(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		path := r.path("swap")
		r.must(os.WriteFile(path, bytes.Repeat([]byte("s"), 8<<20), 0o600))
		for _, c := range [][]string{{"mkswap", "-q", path}, {"sync", "-f", r.dir}} {
			if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v: %s", c, err, out)
			}
		}
		original, err := os.ReadFile(path)
		r.must(err)
		if out, err := exec.Command("swapon", "--priority", "30000", path).CombinedOutput(); err != nil {
			t.Fatalf("swapon: %v: %s", err, out)
		}
		off := func() error { return exec.Command("swapoff", path).Run() }
		t.Cleanup(func() { _ = off() })
		s := r.take(nil)
		m, err := unix.Mmap(-1, 0, 4<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		r.must(err)
		defer unix.Munmap(m)
		for i := range m {
			m[i] = byte(i)
		}
		const pageOut = 21 // MADV_PAGEOUT
		r.must(unix.Madvise(m, pageOut))
		waitFor(t, func() bool {
			b, err := os.ReadFile("/proc/swaps")
			return err != nil || !strings.Contains(string(b), "\t0\t\t30000")
		})
		time.Sleep(100 * time.Millisecond)
		r.unmixed(s, map[string][]byte{"swap": original}, true)
		r.must(off())
	})
}
