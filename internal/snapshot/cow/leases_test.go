package cow

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
)

const leaseVariable = "STILLPOINT_TEST_LEASE"

// TestLeaseChild holds leases on files of a directory, and writes to them for as
// long as it is told to: the same byte all over the first page.
func TestLeaseChild(t *testing.T) {
	dir := os.Getenv(leaseVariable)
	if dir == "" {
		return // is run by TestLeases only
	}
	fds := map[string]int{}
	for name, how := range map[string][2]int{
		"write": {unix.O_RDWR, unix.F_WRLCK}, "blind": {unix.O_WRONLY, unix.F_WRLCK}, "read": {unix.O_RDONLY, unix.F_RDLCK},
	} {
		fd, err := unix.Open(filepath.Join(dir, name), how[0]|unix.O_CLOEXEC, 0)
		must(t, err)
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, how[1])
		must(t, err)
		fds[name] = fd
	}
	fmt.Println("ready")
	lines := make(chan string)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			lines <- in.Text()
		}
		os.Exit(0)
	}()
	for writes := byte(0); ; {
		<-lines // write
		var longest time.Duration
		for over := false; !over; writes++ {
			for _, name := range []string{"write", "blind"} {
				began := time.Now()
				_, err := unix.Pwrite(fds[name], bytes.Repeat([]byte{'a' + writes%26}, 4096), 0)
				must(t, err)
				longest = max(longest, time.Since(began))
			}
			select {
			case <-lines: // stop
				over = true
			case <-time.After(time.Millisecond):
			}
		}
		held := 0
		for _, fd := range fds {
			if kind, err := unix.FcntlInt(uintptr(fd), unix.F_GETLEASE, 0); err == nil && kind != unix.F_UNLCK {
				held++
			}
		}
		fmt.Println("wrote", int64(longest), held)
	}
}

// Who holds a lease for writing and writes, before the instant, while it is taken,
// and after it, is not kept waiting, and keeps the lease. The file reads as it
// was; one that only its holder can open, and not for reading, is named.
func TestLeases(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		f, err := r.p.acquire(r.target.Volume)
		r.must(err)
		t.Cleanup(func() { r.must(r.p.giveBack(r.target.Volume.ID, f)) })
		for _, name := range []string{"write", "blind", "read"} {
			r.must(os.WriteFile(r.path(name), bytes.Repeat([]byte("A"), 8192), 0o644))
		}
		c := exec.Command(os.Args[0], "-test.run=^TestLeaseChild$")
		c.Env = append(os.Environ(), leaseVariable+"="+r.dir)
		c.Stderr = os.Stderr
		in, err := c.StdinPipe()
		r.must(err)
		out, err := c.StdoutPipe()
		r.must(err)
		r.must(c.Start())
		t.Cleanup(func() { in.Close(); _ = c.Process.Kill(); _ = c.Wait() })
		said := bufio.NewScanner(out)
		if !said.Scan() || said.Text() != "ready" {
			t.Fatalf("the child says %q", said.Text())
		}
		writing := func(do func()) {
			t.Helper()
			fmt.Fprintln(in, "write")
			do()
			fmt.Fprintln(in, "stop")
			var longest int64
			var held int
			if !said.Scan() {
				t.Fatal("the child has ended")
			}
			if _, err := fmt.Sscanf(said.Text(), "wrote %d %d", &longest, &held); err != nil || held != 3 {
				t.Errorf("the child says %q; it had 3 leases", said.Text())
			}
			if d := time.Duration(longest); d > time.Second {
				t.Errorf("a write waited for %v", d)
			} else {
				t.Logf("the longest write took %v", d)
			}
		}
		look := func(s *target) {
			t.Helper()
			b := r.read(s, "write")
			if len(b) != 8192 || !bytes.Equal(b[:4096], bytes.Repeat(b[:1], 4096)) || !bytes.Equal(b[4096:], bytes.Repeat([]byte("A"), 4096)) {
				t.Errorf("the file with a lease for writing is a mix, of %d bytes", len(b))
			}
			again := r.read(s, "write")
			if !bytes.Equal(again, b) {
				t.Error("it changes")
			}
			direct := make([]byte, len(b))
			file := r.open(r.reader(s), "write")
			_, err := file.ReadAt(direct, 0)
			r.must(errors.Join(err, file.Verify()))
			if !bytes.Equal(direct, b) {
				t.Errorf("read directly it is another one: %.20q", direct)
			}
			if b := r.read(s, "read"); !bytes.Equal(b, bytes.Repeat([]byte("A"), 8192)) {
				t.Error("the file with a lease for reading is another one")
			}
			if b, err := os.ReadFile(filepath.Join(s.Root(), "blind")); err == nil {
				t.Errorf("what nobody can read reads %.20q", b)
			}
			wantGap(t, s, "blind", problem.FileUnreadable)
			if !strings.Contains(s.Gaps()[0].Reason, fmt.Sprintf("(process %d) holds a lease", c.Process.Pid)) {
				t.Errorf("%+v", s.Gaps())
			}
			r.must(s.Err())
		}
		first := r.take(nil)
		if b := r.read(first, "write"); !bytes.Equal(b, bytes.Repeat([]byte("A"), 8192)) {
			t.Errorf("the file is not as it was: %.20q", b)
		}
		writing(func() {
			time.Sleep(50 * time.Millisecond)
			look(first)
		})
		if b := r.read(first, "write"); !bytes.Equal(b, bytes.Repeat([]byte("A"), 8192)) {
			t.Errorf("the file is not as it was: %.20q", b)
		}
		r.must(first.Release(t.Context()))
		var second *target
		writing(func() { second = r.take(nil) })
		writing(func() { look(second) })
	})
}
