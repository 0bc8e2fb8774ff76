package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if mode, path, ok := strings.Cut(os.Getenv("PROCESS_TEST_CHILD"), " "); ok {
		child(mode, path)
	}
	os.Exit(m.Run())
}

// child does something with the file at path, says so, and does not end.
func child(mode, path string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	fail(err)
	switch mode {
	case "map":
		_, err := unix.Mmap(fd, 4096, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		fail(err)
	case "own": // descriptors and memory are left to other threads, and one has its own
		unix.Close(fd)
		opened := make(chan error)
		var other func()
		other = func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() { // not the first one
				go other()
				select {}
			}
			err := unix.Unshare(unix.CLONE_FILES)
			if err == nil {
				_, err = unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
			}
			opened <- err
			select {}
		}
		go other()
		fail(<-opened)
	case "splice":
		pipe := make([]int, 2)
		fail(unix.Pipe(pipe))
		go func() { _, _ = unix.Splice(pipe[0], nil, fd, nil, 4096, 0) }()
		time.Sleep(20 * time.Millisecond)
	case "sendfile":
		pipe, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		fail(err)
		fail(unix.Ftruncate(fd, 16<<20))
		go func() { _, _ = unix.Sendfile(pipe[1], fd, nil, 16<<20) }() // until the socket is full
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Println("ready")
	time.Sleep(time.Minute)
	os.Exit(0)
}

func startChild(t *testing.T, mode, path string) int {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Args[0] = "process-child"
	c.Env = append(os.Environ(), "PROCESS_TEST_CHILD="+mode+" "+path)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	b := make([]byte, 100)
	n, err := out.Read(b)
	if err != nil || string(b[:n]) != "ready\n" {
		t.Fatalf("the child says %q, %v", b[:n], err)
	}
	return c.Process.Pid
}

// newFile makes a file, and says what stat says of it.
func newFile(t *testing.T) (path string, st unix.Stat_t) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "a file")
	must(t, os.WriteFile(path, make([]byte, 16<<10), 0o600))
	must(t, unix.Stat(path, &st))
	return path, st
}

func TestTasks(t *testing.T) {
	path, st := newFile(t)
	pid := startChild(t, "open", path)
	threads, processes := map[int]int{}, 0
	must(t, Tasks(func(p, tid int) { threads[p]++ }))
	must(t, Processes(func(int) { processes++ }))
	if threads[pid] < 2 || threads[os.Getpid()] < 2 || threads[1] < 1 {
		t.Errorf("threads: %d of the child, %d of our own", threads[pid], threads[os.Getpid()])
	}
	if d := processes - len(threads); d < -20 || d > 20 {
		t.Errorf("%d processes, or %d", processes, len(threads))
	}
	if name := Name(pid); name != "exe" && name != "process.test" {
		t.Errorf("its name is %q", name)
	}
	if name := Name(1 << 30); name != "" {
		t.Errorf("nobody's name is %q", name)
	}
	var found []Descriptor
	Descriptors(pid, st.Dev, func(d Descriptor) {
		if d.Ino == st.Ino {
			found = append(found, d)
		}
	})
	if len(found) != 1 || found[0].TID != pid || !found[0].Regular() || found[0].Flags&unix.O_ACCMODE != unix.O_RDWR {
		t.Errorf("found %+v", found)
	}
	all := 0
	Descriptors(pid, 0, func(d Descriptor) { all++ })
	if all < 4 {
		t.Errorf("%d descriptors", all)
	}
	Descriptors(1<<30, 0, func(d Descriptor) { t.Error("nobody has one") })
}

// A thread may have descriptors that its process has not.
func TestOwnDescriptors(t *testing.T) {
	path, st := newFile(t)
	pid := startChild(t, "own", path)
	var found []Descriptor
	Descriptors(pid, st.Dev, func(d Descriptor) {
		if d.Ino == st.Ino {
			found = append(found, d)
		}
	})
	if len(found) != 1 || found[0].TID == pid || found[0].Flags&unix.O_ACCMODE != unix.O_WRONLY {
		t.Errorf("found %+v", found)
	}
}

func TestMappings(t *testing.T) {
	path, st := newFile(t)
	pid := startChild(t, "map", path)
	var found []Mapping
	count := 0
	Mappings(pid, func(m Mapping) {
		count++
		if m.Ino == st.Ino && m.Dev == st.Dev {
			if string(m.Path) != path {
				t.Errorf("the path is %q", m.Path)
			}
			found = append(found, m)
		}
	})
	if len(found) != 1 || !found[0].Shared || !found[0].Writable || found[0].Offset != 4096 || found[0].End-found[0].Start != 4096 {
		t.Errorf("found %+v", found)
	}
	if count < 3 {
		t.Errorf("%d mappings", count)
	}
	for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR} {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		must(t, err)
		memory, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
		must(t, err)
		unix.Close(fd)
		Mappings(os.Getpid(), func(m Mapping) {
			if m.Ino != st.Ino || m.Dev != st.Dev {
				return
			}
			if may := m.MayBecomeWritable(os.Getpid()); m.Writable || may != (flags == unix.O_RDWR) {
				t.Errorf("opened with %o: %t, %+v", flags, may, m)
			}
		})
		must(t, unix.Munmap(memory))
	}
	Mappings(2, func(Mapping) { t.Error("a thread of the kernel has none") })
}

// A process with many mappings, whose list comes in many pieces.
func TestManyMappings(t *testing.T) {
	path, st := newFile(t)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	const n = 2000
	for i := range n { // no two that could be merged
		m, err := unix.Mmap(fd, int64(i%2)*8192, 4096, unix.PROT_READ, unix.MAP_SHARED)
		must(t, err)
		defer unix.Munmap(m)
	}
	found := 0
	Mappings(os.Getpid(), func(m Mapping) {
		if m.Ino == st.Ino && m.Dev == st.Dev && !m.Writable && m.Shared && string(m.Path) == path {
			found++
		}
	})
	if found != n {
		t.Errorf("%d of %d", found, n)
	}
}

func TestCopyingTasks(t *testing.T) {
	path, st := newFile(t)
	splicing, sending := startChild(t, "splice", path), startChild(t, "sendfile", path)
	spinner := spin(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	began := time.Now()
	copying, err := CopyingTasks(ctx)
	must(t, err)
	t.Logf("it took %v", time.Since(began))
	from := func(pid int) (c Copying) {
		for _, c = range copying {
			if c.PID == pid {
				return c
			}
		}
		t.Errorf("process %d is not among %+v", pid, copying)
		return Copying{}
	}
	c := from(splicing)
	if f, err := FileOf(c.TID, c.To); err != nil || f.Ino != st.Ino || c.Number != sysSplice || c.Unsure {
		t.Errorf("splice: %+v to %+v, %v", c, f, err)
	}
	c = from(sending)
	if f, err := FileOf(c.TID, c.From); err != nil || f.Ino != st.Ino || c.Number != sysSendfile {
		t.Errorf("sendfile: %+v from %+v, %v", c, f, err)
	}
	for _, c := range copying {
		if c.PID == spinner {
			t.Errorf("the spinning one: %+v", c)
		}
	}
	// In no time nothing is sure.
	over, cancel2 := context.WithCancel(t.Context())
	cancel2()
	copying, err = CopyingTasks(over)
	must(t, err)
	if !slices.ContainsFunc(copying, func(c Copying) bool { return c.PID == spinner && c.Unsure }) {
		t.Errorf("the spinning one is not among %+v", copying)
	}
}

// Who computes gets on, who sleeps is no matter, and who is kept from running
// is named.
func TestDrain(t *testing.T) {
	spinner := spin(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	began := time.Now()
	stuck, err := Drain(ctx)
	if err != nil || len(stuck) > 0 {
		t.Errorf("stuck: %v, %v", stuck, err)
	}
	t.Logf("with a spinning process: %v", time.Since(began))

	// The spinner can run only where another one, which is always preferred, does.
	var one unix.CPUSet
	one.Set(runtime.NumCPU() - 1)
	must(t, unix.SchedSetaffinity(spinner, &one))
	hog := spin(t) // a process of its own: a goroutine would be stopped now and then
	must(t, unix.SchedSetaffinity(hog, &one))
	must(t, unix.SchedSetAttr(hog, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0))
	defer func() { must(t, unix.Kill(hog, unix.SIGKILL)) }()
	began = time.Now()
	soon, cancel2 := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel2()
	stuck, err = Drain(soon)
	t.Logf("with a starved process: %v, stuck %v", time.Since(began), stuck)
	if err != nil || !slices.Contains(stuck, Task{spinner, spinner}) {
		t.Errorf("stuck: %v, %v", stuck, err)
	}
}
