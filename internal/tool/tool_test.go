package tool

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	t.Setenv("SECRET", "x")
	out, err := Run(t.Context(), "sh", "-c", `echo "$PATH $LC_ALL [$SECRET] $PWD"; echo note >&2`)
	if err != nil {
		t.Fatal(err)
	}
	if want := path + " C [] /\n"; string(out) != want {
		t.Errorf("printed %q, want %q", out, want)
	}
	out, err = Command{Name: "cat", Stdin: strings.NewReader("in")}.Run(t.Context())
	if err != nil || string(out) != "in" {
		t.Errorf("printed %q, %v", out, err)
	}
	out, err = Command{Name: "sh", Args: []string{"-c", "pwd; echo $A"}, Dir: "/tmp", Env: []string{"A=b"}}.Run(t.Context())
	if err != nil || string(out) != "/tmp\nb\n" {
		t.Errorf("printed %q, %v", out, err)
	}
}

func TestErrors(t *testing.T) {
	out, err := Run(t.Context(), "sh", "-c", "echo some; echo one >&2; echo two >&2; exit 7")
	var e *Error
	if !errors.As(err, &e) || e.Code != 7 || e.Stderr != "one\ntwo" || len(e.Command) != 3 || string(out) != "some\n" {
		t.Errorf("%q, %+v", out, e)
	}
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		t.Errorf("%v wraps no exit error", err)
	}
	if s := err.Error(); !strings.HasSuffix(s, "exit status 7: one; two") {
		t.Errorf("it says %q", s)
	}
	if _, err := Run(t.Context(), "no-such-program"); !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &e) {
		t.Errorf("unknown program: %v", err)
	}
	if _, err := Run(t.Context(), "sh", "-c", "kill -9 $$"); !errors.As(err, &e) || e.Code != -1 {
		t.Errorf("killed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, "true"); !errors.Is(err, context.Canceled) {
		t.Errorf("with a dead context: %v", err)
	}
}

// What must not be killed is asked to end, and does so in its own time.
func TestWhole(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said := first{limit: 5, full: cancel}
	// It waits without a child: who is asked is the whole group, and a shell says
	// of a child that it was terminated.
	p, err := Command{Name: "sh", Args: []string{"-c", `trap 'asked=1' TERM; echo ready; while test -z "$asked"; do :; done; echo done >&2; exit 3`}, Whole: true}.
		Start(ctx, &said) // "ready" and more is over the limit
	if err != nil {
		t.Fatal(err)
	}
	var e *Error
	if err := p.Wait(); !errors.As(err, &e) || e.Stderr != "done" {
		t.Errorf("%v: it could not do what it had begun", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err = (Command{Name: "sleep", Args: []string{"300"}, Whole: true}).Run(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrStuck) {
		t.Errorf("what ends when asked: %v", err)
	}
}

// A program and what it started are killed when the time is over, and Run does
// not wait for a pipe that something still holds open.
func TestDeadline(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	out, err := Run(ctx, "sh", "-c", "sleep 300 & echo $!; wait")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
	child := strings.TrimSpace(string(out))
	for wait := time.Now().Add(5 * time.Second); alive(child); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(wait) {
			t.Fatalf("grandchild %q is alive", child)
		}
	}
}

func alive(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !bytes.Contains(b, []byte(") Z "))
}

func TestOutputLimit(t *testing.T) {
	out, err := Run(t.Context(), "sh", "-c", "cat /dev/zero")
	if !errors.Is(err, ErrOutput) || len(out) != outputLimit {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	_, err = Run(t.Context(), "sh", "-c", "yes a | head -c 100000 >&2; echo end >&2; exit 1")
	var e *Error
	if !errors.As(err, &e) || len(e.Stderr) > stderrLimit || !strings.HasSuffix(e.Stderr, "end") {
		t.Errorf("%d bytes of stderr kept", len(e.Stderr))
	}
}

func TestStart(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	p, err := Command{Name: "cat", Stdin: r}.Start(t.Context(), &out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := p.Wait(); err != nil || out.String() != "hello" {
		t.Errorf("%q, %v", &out, err)
	}

	p, err = Command{Name: "sleep", Args: []string{"300"}}.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if group, err := syscall.Getpgid(p.Pid()); err != nil || group != p.Pid() {
		t.Errorf("process group %d of %d, %v", group, p.Pid(), err)
	}
	p.Kill()
	var e *Error
	if err := p.Wait(); !errors.As(err, &e) || e.Code != -1 {
		t.Errorf("after Kill: %v", err)
	}
	p.Kill() // harmless now
}
