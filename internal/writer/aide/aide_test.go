package aide

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

const program = "stillpoint-aide-test"

// An echo is an aide that leaves a file when it ends.
type echo struct{ path string }

func (e *echo) Ready(bool, *bool) error { return nil }

func (e *echo) Path(path string, answer *string) error {
	e.path, *answer = path, "kept "+path
	return nil
}

func (e *echo) Fail(code string, _ *bool) error {
	return Failed(problem.New(problem.Code(code), "subject", errors.New("the cause")))
}

func (e *echo) Hang(bool, *bool) error { select {} }

func (e *echo) End() { _ = os.WriteFile(e.path, []byte("ended"), 0o600) }

func TestMain(m *testing.M) {
	Main(program, &echo{})
	if path := os.Getenv("AIDE_TEST_PATH"); path != "" {
		a, err := Start(context.Background(), program)
		var kept string
		if err == nil {
			err = a.Call(context.Background(), "Path", path, &kept)
		}
		if err == nil {
			go func() { _ = a.Call(context.Background(), "Hang", true, nil) }()
		}
		fmt.Println(kept, err)
		select {}
	}
	os.Exit(m.Run())
}

func start(t *testing.T) *Aide {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a, err := Start(ctx, program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func TestCall(t *testing.T) {
	a := start(t)
	path := t.TempDir() + "/ended"
	var kept string
	if err := a.Call(t.Context(), "Path", path, &kept); err != nil || kept != "kept "+path {
		t.Fatalf("%q, %v", kept, err)
	}
	err := a.Call(t.Context(), "Fail", string(problem.WriterBusy), nil)
	if problem.CodeOf(err) != problem.WriterBusy || err.Error() != "subject: the cause" {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.Call(ctx, "Hang", true, nil); problem.CodeOf(err) != problem.WriterTimeout {
		t.Errorf("%v", err)
	}
	a.Close()
	waitFor(t, path)
	waitGone(t, a)
	if err := a.Call(t.Context(), "Path", path, &kept); problem.CodeOf(err) != problem.WriterRetryable {
		t.Errorf("%v", err)
	}
}

// One that is killed is noticed at once.
func TestKilled(t *testing.T) {
	a := start(t)
	hangs := make(chan error, 1)
	go func() { hangs <- a.Call(t.Context(), "Hang", true, nil) }()
	a.process.Kill()
	waitGone(t, a)
	if err := <-hangs; problem.CodeOf(err) != problem.WriterRetryable {
		t.Errorf("%v", err)
	}
}

// When we are killed the aide ends in order, also while a call is under way.
func TestParentKilled(t *testing.T) {
	path := t.TempDir() + "/ended"
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), "AIDE_TEST_PATH="+path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "kept "+path+" <nil>" {
		t.Errorf("it says %q", lines.Text())
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("ended early: %v", err)
	}
	_ = c.Process.Signal(syscall.SIGKILL)
	_ = c.Wait()
	waitFor(t, path)
}

func waitFor(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if b, _ := os.ReadFile(path); string(b) == "ended" {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the aide has not ended")
		}
	}
}

func waitGone(t *testing.T, a *Aide) {
	t.Helper()
	select {
	case <-a.Gone():
	case <-time.After(20 * time.Second):
		t.Fatal("the aide is still there")
	}
}
