package guard

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/freeze"
)

func TestMain(m *testing.M) {
	Main(Duty{"write", write})
	if dir := os.Getenv("GUARD_TEST_CHILD"); dir != "" {
		child(dir, os.Getenv("GUARD_TEST_HEART") != "")
	}
	os.Exit(m.Run())
}

// child is a process that freezes a volume under a guard, and then does
// nothing any more until it is told to.
func child(dir string, heart bool) {
	runtime.LockOSThread() // the first one, as main goes
	check := func(err error) {
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
	}
	root, err := os.Open(dir)
	check(err)
	g, err := Start()
	check(err)
	check(g.Watch(root))
	fmt.Println("guard", g.process.Pid())
	if text := os.Getenv("GUARD_TEST_FOLLOW"); text != "" {
		check(followed(g, text))
	}
	if to := os.Getenv("GUARD_TEST_DUTY"); to != "" {
		check(errors.Join(g.Bequeath("none", "of that name"), g.Bequeath("write", to)))
	}
	limit := time.Minute
	if heart {
		check(g.Heart(time.Second))
		for range 65 { // longer than the limit, and than any answer may take
			time.Sleep(100 * time.Millisecond)
			g.Beat()
		}
	} else if text := os.Getenv("GUARD_TEST_LIMIT"); text != "" {
		limit, err = time.ParseDuration(text)
		check(err)
	}
	check(freeze.Sync(root)) // the freeze is to find nothing to write, for the time counts
	check(g.Hold(limit))
	check(freeze.Freeze(root))
	if os.Getenv("GUARD_TEST_BLOCK") != "" {
		blocked := make(chan int)
		go func() {
			runtime.LockOSThread()
			blocked <- syscall.Gettid()
			_ = os.WriteFile(dir+"/blocked", []byte("x"), 0o600)
		}()
		if <-blocked == os.Getpid() {
			fmt.Println("the first thread would wait")
			os.Exit(1)
		}
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Println("frozen")
	if os.Getenv("GUARD_TEST_THAW") != "" {
		check(freeze.Thaw(root))
	} else {
		_, _ = os.Stdin.Read(make([]byte, 1))
	}
	late, err := g.Done()
	fmt.Println("done", late, err)
	check(g.Close())
	os.Exit(0)
}

// A parent is a running child of the test.
type parent struct {
	*exec.Cmd
	lines *bufio.Scanner
	guard int
}

func startParent(t *testing.T, dir string, env ...string) *parent {
	t.Helper()
	p := &parent{Cmd: exec.Command("/proc/self/exe")}
	p.Env = append(append(os.Environ(), "GUARD_TEST_CHILD="+dir), env...)
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	p.lines = bufio.NewScanner(out)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGCONT)
		_ = p.Process.Kill()
		_ = p.Wait()
		waitGone(t, p.guard)
	})
	word, number, _ := strings.Cut(p.line(t), " ")
	if p.guard, err = strconv.Atoi(number); word != "guard" || err != nil {
		t.Fatalf("%q, %v", word, err)
	}
	if line := p.line(t); line != "frozen" {
		t.Fatalf("the child says %q", line)
	}
	return p
}

func (p *parent) line(t *testing.T) string {
	t.Helper()
	if !p.lines.Scan() {
		t.Fatal("the child has ended")
	}
	return p.lines.Text()
}

// waitGone waits until a process has ended.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	if pid == 0 {
		return
	}
	for end := time.Now().Add(5 * time.Second); alive(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("process %d is left", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
			return
		}
	}
}

// alive tells whether a process runs. One whose new parent has not looked yet
// is a zombie without other threads.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err == nil && (!strings.Contains(string(b), ") Z ") || len(threads) > 1)
}

func onVolumes(t *testing.T, f func(t *testing.T, dir string, root *os.File)) {
	for kind, size := range map[string]int64{"ext4": 128 * scratch.MiB, "xfs": 320 * scratch.MiB} {
		t.Run(kind, func(t *testing.T) {
			v := scratch.New(t, kind, size)
			root, err := os.Open(v.Dir)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { root.Close() })
			late := time.AfterFunc(40*time.Second, func() { _ = freeze.ThawDescriptor(int(root.Fd())) })
			t.Cleanup(func() { late.Stop(); _ = freeze.Thaw(root) })
			f(t, v.Dir, root)
		})
	}
}

// waitWritable writes to the volume, and returns how long that took.
func waitWritable(t *testing.T, dir string) time.Duration {
	t.Helper()
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the volume is still frozen")
	}
	return time.Since(began)
}

// The parent is killed with the volume frozen.
func TestParentKilled(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string, root *os.File) {
		p := startParent(t, dir)
		if frozen, err := freeze.Frozen(root); !frozen || err != nil {
			t.Fatalf("frozen: %t, %v", frozen, err)
		}
		began := time.Now()
		_ = p.Process.Kill()
		waitWritable(t, dir)
		t.Logf("thawed %v after the kill", time.Since(began))
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// The parent is killed while one of its threads waits for the frozen volume,
// so that it cannot quite die.
func TestParentKilledBlocked(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string, root *os.File) {
		p := startParent(t, dir, "GUARD_TEST_BLOCK=1", "GUARD_TEST_LIMIT=5s")
		began := time.Now()
		_ = p.Process.Kill()
		waitWritable(t, dir)
		t.Logf("thawed %v after the kill", time.Since(began))
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// The parent is stopped: the deadline counts.
func TestParentStopped(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string, root *os.File) {
		p := startParent(t, dir, "GUARD_TEST_LIMIT=500ms")
		_ = p.Process.Signal(syscall.SIGSTOP)
		took := waitWritable(t, dir)
		t.Logf("thawed after %v", took)
		if took < 100*time.Millisecond || took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		_ = p.Process.Signal(syscall.SIGCONT)
		// It learns that it was late.
		in, _ := os.OpenFile(fmt.Sprintf("/proc/%d/fd/0", p.Process.Pid), os.O_WRONLY, 0)
		if in != nil {
			_, _ = in.Write([]byte("\n"))
			in.Close()
		}
		if line := p.line(t); line != "done true <nil>" {
			t.Errorf("the child says %q", line)
		}
	})
}

// The parent's heart stops: it is killed, and the volume thawed.
func TestHeart(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string, root *os.File) {
		p := startParent(t, dir, "GUARD_TEST_HEART=1")
		took := waitWritable(t, dir)
		t.Logf("thawed after %v", took)
		if took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
		late := time.AfterFunc(5*time.Second, func() { _ = p.Process.Signal(syscall.SIGTERM) })
		_ = p.Wait()
		late.Stop()
		if s := p.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGKILL {
			t.Errorf("the child ended with %v", p.ProcessState)
		}
	})
}

func start(t *testing.T, root *os.File) *Guard {
	t.Helper()
	g, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	if err := g.Watch(root); err != nil {
		t.Fatal(err)
	}
	return g
}

// In time, the guard does nothing, time after time; late, it thaws.
func TestDeadline(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string, root *os.File) {
		g := start(t, root)
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			check(g.Hold(10 * time.Second))
			check(freeze.Freeze(root))
			if frozen, err := freeze.Frozen(root); !frozen || err != nil {
				t.Errorf("frozen: %t, %v", frozen, err)
			}
			check(freeze.Thaw(root))
			if late, err := g.Done(); late || err != nil {
				t.Errorf("done: late %t, %v", late, err)
			}
		}
		began := time.Now()
		check(g.Hold(200 * time.Millisecond))
		hold := time.Since(began)
		check(freeze.Freeze(root))
		waitWritable(t, dir)
		t.Logf("hold took %v, thawed after %v", hold, time.Since(began))
		// A freeze that comes to its end too late is undone, too.
		if err := freeze.Freeze(root); err == nil {
			waitWritable(t, dir)
		} else {
			t.Error(err)
		}
		if late, err := g.Done(); !late || err != nil {
			t.Errorf("done: late %t, %v", late, err)
		}
		// And then no more.
		check(freeze.Freeze(root))
		time.Sleep(50 * time.Millisecond)
		if frozen, err := freeze.Frozen(root); !frozen || err != nil {
			t.Errorf("after Done: frozen %t, %v", frozen, err)
		}
		check(freeze.Thaw(root))
		check(g.Hold(10 * time.Second))
		if late, err := g.Done(); late || err != nil {
			t.Errorf("the next time: late %t, %v", late, err)
		}
		check(g.Unwatch())
		pid := g.process.Pid()
		check(g.Close())
		waitGone(t, pid)
	})
}

// The guard is killed: the parent hears of it.
func TestGuardKilled(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string, root *os.File) {
		g := start(t, root)
		if err := g.Hold(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		select {
		case <-g.Gone():
			t.Error("it is gone")
		default:
		}
		_ = syscall.Kill(g.process.Pid(), syscall.SIGKILL)
		if _, err := g.Done(); !errors.Is(err, ErrGone) {
			t.Errorf("done: %v", err)
		}
		if err := g.Hold(time.Second); !errors.Is(err, ErrGone) {
			t.Errorf("hold: %v", err)
		}
		g.Beat()
		select {
		case <-g.Gone():
		case <-time.After(5 * time.Second):
			t.Error("it is not gone")
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
}
