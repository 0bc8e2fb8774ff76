package frozen

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/guard"
	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/freeze"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(spliceTo); name != "" {
		runtime.LockOSThread()
		splice(name)
	}
	guard.Main()
	os.Exit(m.Run())
}

func newHold(t *testing.T, n int) (*Hold, []string) {
	t.Helper()
	var dirs []string
	var all []System
	for range n {
		v := scratch.New(t, "ext4", 64*scratch.MiB)
		root, err := os.Open(v.Dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { root.Close() })
		dirs, all = append(dirs, v.Dir), append(all, System{Root: root, Name: v.Dir})
	}
	h, err := New(all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h, dirs
}

// Who writes while all is suspended waits until it is resumed.
func TestHold(t *testing.T) {
	h, dirs := newHold(t, 2)
	if err := h.InTime(); err == nil {
		t.Error("before Suspend it is suspended")
	}
	for range 2 {
		if err := errors.Join(h.Write(t.Context()), h.Suspend(t.Context()), h.InTime()); err != nil {
			t.Fatal(err)
		}
		wrote := make(chan error, len(dirs))
		for _, dir := range dirs {
			go func() { wrote <- os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600) }()
		}
		select {
		case <-wrote:
			t.Error("somebody wrote")
		case <-time.After(50 * time.Millisecond):
		}
		if held, err := h.Resume(); err != nil || held <= 0 {
			t.Errorf("resume: %v, %v", held, err)
		}
		for range dirs {
			if err := <-wrote; err != nil {
				t.Error(err)
			}
		}
	}
	if err := errors.Join(h.Close(), h.Close()); err != nil {
		t.Error(err)
	}
}

// A thaw by somebody else is noticed, and another one's freeze ends a Hold.
func TestOthers(t *testing.T) {
	h, dirs := newHold(t, 1)
	if err := h.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := freeze.Thaw(root); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Resume(); !errors.Is(err, ErrLate) {
		t.Errorf("thawed by another: %v", err)
	}
	if err := freeze.Freeze(root); err != nil {
		t.Fatal(err)
	}
	err = h.Suspend(t.Context())
	_, rerr := h.Resume()
	if terr := freeze.Thaw(root); terr != nil {
		t.Errorf("the other one's freeze was ended: %v", terr)
	}
	if problem.CodeOf(err) != problem.Busy || rerr != nil {
		t.Errorf("frozen by another: %v, %v", err, rerr)
	}
}

// What is not ended in time, the guard ends.
func TestLate(t *testing.T) {
	h, dirs := newHold(t, 1)
	if err := h.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dirs[0], "file"), nil, 0o600); err != nil { // waits for the guard
		t.Error(err)
	}
	if err := h.InTime(); problem.CodeOf(err) != problem.FreezeBlocked {
		t.Errorf("late: %v", err)
	}
	if _, err := h.Resume(); !errors.Is(err, ErrLate) {
		t.Errorf("resume after the guard: %v", err)
	}
}

// A splice of another process from an empty pipe does not keep a freeze waiting.
func TestSplice(t *testing.T) {
	h, dirs := newHold(t, 1)
	startSplice(t, filepath.Join(dirs[0], "file"))
	err := h.Suspend(t.Context())
	if _, rerr := h.Resume(); err != nil || rerr != nil {
		t.Errorf("suspend: %v, resume: %v", err, rerr)
	}
}

// Who thaws too late waits for no write that is under way, and lets none wait.
func TestLateThaw(t *testing.T) {
	v := scratch.New(t, "ext4", 64*scratch.MiB)
	root, err := os.Open(v.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	end := startSplice(t, filepath.Join(v.Dir, "file"))
	ended := make(chan error, 1)
	go func() {
		late, err := File{Root: root}.Thaw()
		if err == nil && !late {
			err = errors.New("it is not late")
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits for a write")
		end()
		<-ended
	}
}

// startSplice starts a process that waits in a splice into a file until it is ended.
func startSplice(t *testing.T, name string) (end func()) {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), spliceTo+"="+name)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { in.Close(); _ = c.Wait() })
	t.Cleanup(end)
	if _, err := out.Read(make([]byte, 1)); err != nil { // it is about to
		t.Fatal(err)
	}
	for spliced := false; !spliced; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", c.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		spliced = strings.HasPrefix(string(b), fmt.Sprint(syscall.SYS_SPLICE, " "))
	}
	return end
}

const spliceTo = "STILLPOINT_TEST_SPLICE_TO"

// splice waits in the call, in the main thread, until there is something on its
// standard input.
func splice(name string) {
	f, err := os.Create(name)
	if err != nil {
		os.Exit(1)
	}
	fmt.Print("!")
	_, _ = syscall.Splice(0, nil, int(f.Fd()), nil, 4096, 0)
	os.Exit(0)
}

// While a freeze may still come about that was given up, the guard does not let go of
// the file system.
func TestForgetNot(t *testing.T) {
	h, dirs := newHold(t, 1)
	root, err := os.Open(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	h.given.up()
	if err := errors.Join(h.Forget(), h.guard.Hold(100*time.Millisecond), freeze.Freeze(root)); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(20*time.Second, func() { _ = freeze.Thaw(root) })
	err = os.WriteFile(filepath.Join(dirs[0], "file"), nil, 0o600) // waits for the guard
	if !late.Stop() {
		t.Error("the guard has forgotten the file system")
	}
	h.given.over()
	if thawed, derr := h.guard.Done(); err != nil || derr != nil || !thawed {
		t.Errorf("%v; thawed by the guard: %v, %v", err, thawed, derr)
	}
}

// The guard may thaw in the moment in which we do. That is late, and no error.
func TestThawWhileThawed(t *testing.T) {
	v := scratch.New(t, "ext4", 64*scratch.MiB)
	root, err := os.Open(v.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f := File{Root: root}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				_ = freeze.Thaw(root)
			}
		}
	}()
	defer func() { close(stop); <-ended; _ = freeze.Thaw(root) }()
	for range 300 {
		if err := freeze.Freeze(root); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Thaw(); err != nil {
			t.Fatal(err)
		}
	}
}
