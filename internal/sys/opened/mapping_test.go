package opened

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/thread"
)

const childVariable = "STILLPOINT_TEST_OPENED"

func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); path != "" {
		mapAndStore(path)
		return
	}
	os.Exit(m.Run())
}

// mapAndStore maps a file and, when told so, stores to it with one thread,
// while another changes the process's mappings.
func mapAndStore(path string) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	m, err := syscall.Mmap(int(f.Fd()), 4096, 8192, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	f.Close()
	fmt.Println("mapped")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return
	}
	go func() { // waits for the mapping that the store works in
		time.Sleep(100 * time.Millisecond)
		_, _, _ = syscall.Syscall(syscall.SYS_MUNMAP, uintptr(unsafe.Pointer(&m[4096])), 4096, 0)
	}()
	m[0]++ // waits for the thaw
	fmt.Println("stored")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
}

// startChild returns the process of mapAndStore, and its lines.
func startChild(t *testing.T, path string) (*exec.Cmd, func(), *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); line != "mapped\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	return cmd, func() { _, _ = in.Write([]byte("go on\n")) }, lines
}

// Shared mappings are found. To ask for them can wait for the thaw, as to read
// maps as a whole does, which is why nobody does that under a freeze.
func TestMappings(t *testing.T) {
	v := scratch.New(t, "ext4", 64*scratch.MiB)
	path := filepath.Join(v.Dir, "mapped file")
	if err := os.WriteFile(path, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, goOn, lines := startChild(t, path)
	proc := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
	look := func() error {
		maps, err := unix.Open(proc+"maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(maps)
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return err
		}
		found := 0
		err = SharedMappings(maps, func(m Mapping, name func() string) error {
			found++
			if m.Device != st.Dev || m.Inode != st.Ino || m.Offset != 4096 || m.End-m.Start != 8192 || !m.Writable || name() != path {
				return fmt.Errorf("%+v %q", m, name())
			}
			return nil
		})
		if err == nil && found != 1 {
			err = fmt.Errorf("%d mappings", found)
		}
		return err
	}
	if err := look(); err != nil {
		t.Fatal(err)
	}
	waits := func(f func()) bool { return !within(300*time.Millisecond, f) }
	freeze(t, v.Dir, func() {
		goOn()
		time.Sleep(300 * time.Millisecond)
		t.Logf("under a freeze the query waits: %t, maps: %t, map_files: %t, fd: %t", waits(func() { _ = look() }),
			waits(func() { _, _ = os.ReadFile(proc + "maps") }), waits(func() { _, _ = os.ReadDir(proc + "map_files") }),
			waits(func() { _, _ = os.ReadDir(proc + "fd") }))
	})
	if line, err := lines.ReadString('\n'); line != "stored\n" {
		t.Errorf("after the thaw the child says %q, %v", line, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err := look(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a process that has ended: %v", err)
	}
	maps, err := unix.Open("/proc/2/maps", unix.O_RDONLY|unix.O_CLOEXEC, 0) // kthreadd
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(maps)
	if err := SharedMappings(maps, nil); !errors.Is(err, unix.ESRCH) {
		t.Errorf("of a kernel thread: %v", err)
	}
}

// within tells whether f ends in time.
func within(limit time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

func TestSameTable(t *testing.T) {
	tids := make(chan int)
	done := make(chan struct{})
	defer close(done)
	for _, own := range []bool{true, false} {
		go thread.Apart(func() {
			if own {
				if err := unix.Unshare(unix.CLONE_FILES); err != nil {
					t.Error(err)
				}
			}
			tids <- unix.Gettid()
			<-done
		})
		if same, err := SameTable(os.Getpid(), <-tids); err != nil || same == own {
			t.Errorf("own %t: same %t, %v", own, same, err)
		}
	}
	if _, err := SameTable(os.Getpid(), 1<<22+1); !errors.Is(err, unix.ESRCH) {
		t.Errorf("no task: %v", err)
	}
}

// A duplicate is the same open file, from another table, too.
func TestDuplicate(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd := exec.Command("sleep", "60")
	cmd.ExtraFiles = []*os.File{write}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	write.Close()
	fd, err := Duplicate(cmd.Process.Pid, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		t.Error(err)
	}
	unix.Close(fd)
	b := make([]byte, 2)
	if n, err := read.Read(b); err != nil || string(b[:n]) != "x" {
		t.Errorf("read %q, %v", b[:n], err)
	}
	if _, err := Duplicate(cmd.Process.Pid, 99); !errors.Is(err, unix.EBADF) {
		t.Errorf("no descriptor: %v", err)
	}
}
