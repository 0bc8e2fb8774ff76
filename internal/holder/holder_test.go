package holder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/sys/fanotify"
)

func create(t *testing.T, dir, name string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// held lets eight write, and returns when the child has read the events of all
// and answers none.
func (c *child) held(dir string) (files []*os.File, done chan error) {
	c.t.Helper()
	for i := range 8 {
		files = append(files, create(c.t, dir, fmt.Sprint("file", i)))
	}
	_, _ = c.in.Write([]byte("\n"))
	if word, _ := c.line(); word != "armed" {
		c.t.Fatalf("the child says %q", word)
	}
	done = make(chan error, len(files))
	for _, f := range files {
		go func() {
			_, err := f.WriteAt([]byte("x"), 0)
			done <- err
		}()
	}
	for range files {
		if word, _ := c.line(); word != "held" {
			c.t.Fatalf("the child says %q", word)
		}
	}
	return files, done
}

// goOn waits until all have written.
func goOn(t *testing.T, done <-chan error, limit time.Duration) {
	t.Helper()
	began := time.Now()
	for range cap(done) {
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("a live access failed: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("somebody still waits")
		}
	}
	took := time.Since(began)
	t.Logf("all went on after %v", took)
	if took > limit {
		t.Errorf("that took longer than %v", limit)
	}
}

// seen tells whether a write to an open file makes an event of the filter.
func seen(t *testing.T, f Filter, file *os.File) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := file.WriteAt([]byte("y"), 0)
		done <- err
	}()
	events, err := f.Group.Read(fanotify.NewBuffer(1)) // ends when the test closes the group
	if err != nil || len(events) != 1 {
		t.Fatalf("a write to %s: %v, %v", file.Name(), events, err)
	}
	if err := errors.Join(f.Group.Allow(events[0]), <-done); err != nil {
		t.Error(err)
	}
}

// An agent dies that has read events and answered none; all go on, and the next
// one sees what was opened before, meanwhile, and after.
func TestDead(t *testing.T) {
	for _, how := range []string{"near", "far"} {
		t.Run(how, func(t *testing.T) {
			onVolumes(t, func(t *testing.T, dir string) {
				c := startChild(t, how, dir)
				files, done := c.held(dir)
				_ = c.Process.Kill()
				goOn(t, done, time.Second)
				files = append(files, create(t, dir, "meanwhile"))
				e := adopt(t, c.path)
				if err := e.Taken(); err != nil {
					t.Error(err)
				}
				c.gone()
				files = append(files, create(t, dir, "after"))
				f := e.Filters[0]
				late := time.AfterFunc(20*time.Second, func() { _ = f.Group.Close() })
				defer late.Stop()
				if err := f.Group.Arm(f.Mount); err != nil {
					t.Fatal(err)
				}
				for _, file := range files {
					seen(t, f, file)
				}
				if err := f.Group.Disarm(f.Mount); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// An agent stops beating while somebody waits: it is killed.
func TestSilent(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		c := startChild(t, "silent", dir)
		_, done := c.held(dir)
		goOn(t, done, 2*Heart)
		c.wait()
		if s := c.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGKILL {
			t.Errorf("the agent ended with %v", c.ProcessState)
		}
		if err := adopt(t, c.path).Taken(); err != nil {
			t.Error(err)
		}
		c.gone()
	})
}

// The next agent may die, too, while it takes over. Nobody gets anything as
// long as the agent lives, nor who speaks another language.
func TestDoor(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		c := startChild(t, "near", dir)
		ask := func(name string, also ...op) (answer message) {
			conn, err := net.Dial("unixpacket", c.path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			for _, m := range append([]message{{op: opHello, name: name}}, messages(also)...) {
				if _, err := conn.Write(m.bytes()); err != nil {
					t.Fatal(err)
				}
			}
			if answer, _, err = read(conn.(*net.UnixConn)); err != nil {
				t.Fatal(err)
			}
			for err = nil; err == nil && len(also) > 0; { // what else comes, and goes with the connection
				var files []int
				_, files, err = read(conn.(*net.UnixConn))
				closeAll(files)
				if len(files) > 0 {
					break
				}
			}
			return answer
		}
		if m := ask(version); syscall.Errno(m.a) != syscall.EBUSY {
			t.Errorf("while the agent lives: %+v", m)
		}
		if err := syscall.Kill(c.holder, syscall.SIGTERM); err != nil { // is ignored meanwhile
			t.Error(err)
		}
		_ = c.Process.Kill()
		c.wait()
		for end := time.Now().Add(10 * time.Second); ask(version).a != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the agent is dead, and the holder does not know")
			}
		}
		if m := ask("another/1"); syscall.Errno(m.a) != syscall.EPROTO || m.name != version {
			t.Errorf("another language: %+v", m)
		}
		ask("another/1", opTake)
		ask("another/1", opTaken)
		ask(version, opTake)
		if err := adopt(t, c.path).Taken(); err != nil {
			t.Error(err)
		}
		c.gone()
		if e, err := Adopt(context.Background(), c.path); err != nil || len(e.Filters) > 0 || e.Taken() != nil {
			t.Errorf("without a holder: %+v, %v", e, err)
		}
	})
}

func messages(ops []op) (all []message) {
	for _, o := range ops {
		all = append(all, message{op: o})
	}
	return all
}

// A holder that speaks another language, or says nothing, is ended.
func TestUnfit(t *testing.T) {
	c := startChild(t, "foreign", "")
	if _, err := Adopt(context.Background(), c.path); err == nil || !strings.Contains(err.Error(), `it speaks "stillpoint-holder/0"`) {
		t.Errorf("another language: %v", err)
	}
	c.wait()
	c = startChild(t, "foreign", "")
	if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := Adopt(ctx, c.path); err == nil {
		t.Error("one that is stopped was taken over from")
	}
	c.wait()
}

// A holder has nothing that it does not need, and is spared where memory is
// short; one that cannot be started leaves nothing; a question to one that is
// stopped ends it.
func TestStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "holder")
	h, err := Start(path, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer h.End()
	if err := h.Unlocked(); err != nil {
		t.Errorf("its memory: %v", err)
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.PID()))
	if !strings.Contains(string(status), "VmLck:") || strings.Contains(string(status), "VmLck:\t       0 kB") {
		t.Errorf("its memory:\n%s", status)
	}
	score, _ := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", h.PID()))
	ours, _ := os.ReadFile("/proc/self/oom_score_adj")
	if string(score) != "-1000\n" && string(score) != string(ours) {
		t.Errorf("its score is %s", score)
	}
	if _, err := Start("/proc/nosuch/holder", time.Minute); err == nil {
		t.Error("there is a holder where there can be no socket")
	}
	_ = syscall.Kill(h.PID(), syscall.SIGSTOP)
	if err := h.Forget("any"); !errors.Is(err, ErrGone) {
		t.Errorf("a question to one that is stopped: %v", err)
	}
	select {
	case <-h.Gone():
	case <-time.After(10 * time.Second):
		t.Error("it is not gone")
	}
	h.Beat(Pulse{})
}
