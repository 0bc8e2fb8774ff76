package guard

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/process"
	"stillpoint/internal/sys/thread"
)

// A guard ignores what asks it to end, belongs to nobody's terminal, has no
// file open but what it needs, and all its memory is locked.
func TestIsolation(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string, root *os.File) {
		g := start(t, root)
		pid := g.process.Pid()
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGUSR1} {
			_ = syscall.Kill(pid, s)
		}
		if err := g.Hold(time.Second); err != nil {
			t.Error(err)
		}
		if group, err := syscall.Getpgid(pid); err != nil || group != pid {
			t.Errorf("process group %d of %d, %v", group, pid, err)
		}
		if kb := resident(t, pid); kb > 64<<10 {
			t.Errorf("%d KiB of memory", kb)
		}
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		var open []string
		for _, e := range entries {
			to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
			open = append(open, to)
		}
		if cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); cwd != "/" {
			t.Errorf("it is in %s", cwd)
		}
		if !strings.Contains(strings.Join(open, " "), dir) {
			t.Error("it has not the volume open")
		}
		if err := g.Unwatch(); err != nil {
			t.Error(err)
		}
	})
}

// resident returns the memory of a process in KiB, and sees that it is all
// there: whatever of it comes from files, and what is not sparse.
func resident(t *testing.T, pid int) (sum int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	var area string
	var size int
	locked := true
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case !strings.HasSuffix(f[0], ":"):
			if !locked {
				t.Errorf("not locked: %s", area)
			}
			// Memory that nobody may touch, and what the kernel shows.
			locked = f[1] == "---p" || strings.Contains(line, "[v") || raced && arena(f)
			area = line
		case f[0] == "Size:":
			size, _ = strconv.Atoi(f[1])
		case f[0] == "Rss:":
			there, _ := strconv.Atoi(f[1])
			sum += there
			if !locked && there < size && (size < 8<<10 || strings.Contains(area, "/")) {
				t.Errorf("%d of %d KiB are there: %s", there, size, area)
			}
		case f[0] == "VmFlags:":
			locked = locked || strings.Contains(line, " lo")
		}
	}
	return sum
}

// arena tells whether an area is a heap of the C library for a second thread
// (malloc/arena.c: aligned to 64 MiB), which only the race detector brings with
// it: the program is static and has no C library.
func arena(f []string) bool {
	from, _, _ := strings.Cut(f[0], "-")
	start, err := strconv.ParseUint(from, 16, 64)
	return err == nil && start%(64<<20) == 0 && f[1] == "rw-p" && len(f) == 5
}

// A guard that may not lock its memory is none.
func TestNotLocked(t *testing.T) {
	scratch.NeedRoot(t)
	ended := make(chan error)
	go thread.Apart(func() { // which ends with the thread
		err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_IPC_LOCK, 0, 0, 0)
		if err == nil {
			var g *Guard
			if g, err = Start(); err == nil {
				g.Close()
			}
		}
		ended <- err
	})
	// mlockall(2): ENOMEM where the limit is more than nothing.
	if err := <-ended; !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("start: %v", err)
	}
}

// While it guards, it allocates nothing.
func TestAllocations(t *testing.T) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pair[0])
	defer syscall.Close(pair[1])
	me, err := process.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer me.Close()
	w := newWatch(pair[1], int(me.Fd()), int(me.Fd()))
	if errno := w.listen(); errno != 0 {
		t.Fatal(errno)
	}
	defer syscall.Close(w.epoll)
	w.volumes[0], w.count = pair[0], 1 // which cannot be thawed
	reply := make([]byte, replySize)
	say := func(what op, limit time.Duration, answered bool) {
		if err := send(uintptr(pair[0]), what, 7, limit, nil); err != nil {
			t.Fatal(err)
		}
		w.step()
		if answered {
			if n, err := syscall.Read(pair[0], reply); n != replySize || err != nil || native.Uint32(reply) != 7 {
				t.Fatalf("%d bytes, %v", n, err)
			}
		}
	}
	n := testing.AllocsPerRun(50, func() {
		say(opHeart, time.Minute, true)
		say(opHold, 0, true)
		say(opBeat, 0, false)
		w.step() // late: it tries to thaw
		say(opDone, 0, true)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
