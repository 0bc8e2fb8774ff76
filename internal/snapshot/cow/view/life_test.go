package view

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/fuse"
	"stillpoint/internal/sys/mount"
)

// within fails the test when f takes longer than is bearable.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(8 * time.Second):
		t.Fatalf("%s does not end", what)
	}
}

// connected tells whether there is a FUSE connection of this number. Others
// come and go on this machine.
func connected(t *testing.T, number uint32) bool {
	t.Helper()
	control, err := mount.Open("fusectl", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	_, err = os.Stat(fmt.Sprintf("/proc/self/fd/%d/%d", control.Fd(), number))
	return err == nil
}

// waitFor waits until a condition holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(8 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not so", what)
		}
	}
}

// A view is in nobody's table of mounts, and nothing is left of it.
func TestNothingIsLeft(t *testing.T) {
	scratch.NeedRoot(t)
	v, p := show(t, newMemory())
	if b, err := os.ReadFile(p + "/a"); err != nil || string(b) != "content of a" {
		t.Fatalf("%q, %v", b, err)
	}
	if !connected(t, v.number) {
		t.Error("there is no connection of this number: the test looks at the wrong place")
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), fmt.Sprintf(" 0:%d ", v.number)) {
		t.Errorf("it is among the mounts: %v\n%s", err, mounts)
	}
	within(t, "Close", func() { err = v.Close() })
	if again := v.Close(); err != nil || again != nil {
		t.Errorf("closed with %v, and again with %v", err, again)
	}
	waitFor(t, "no connection is left", func() bool { return !connected(t, v.number) })
}

// hold opens what is there, says so, and waits.
func hold(path string) error {
	f, err := os.Open(path + "/a")
	if err != nil {
		return err
	}
	if _, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE); err != nil {
		return err
	}
	if err := os.Chdir(path); err != nil {
		return err
	}
	fmt.Println("holding")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// start starts another process and waits until it says something.
func start(t *testing.T, c *exec.Cmd) (said string) {
	t.Helper()
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		c.Process.Kill()
		c.Wait()
	})
	said, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%q, %v", said, err)
	}
	return strings.TrimSpace(said)
}

// Close does not wait for who has something open, and they get errors.
func TestCloseWhileInUse(t *testing.T) {
	scratch.NeedRoot(t)
	m := newMemory()
	m.add("b", 3, 0o644, make([]byte, 1<<20))
	v, p := show(t, m)
	start(t, other("hold", p))
	dir, err := os.Open(p + "/.")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	f, err := os.Open(p + "/b")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	within(t, "Close", func() { err = v.Close() })
	if err != nil {
		t.Error(err)
	}
	if n, err := f.ReadAt(make([]byte, 10), 5000); err == nil {
		t.Errorf("read %d bytes of a view that is closed", n)
	}
	if _, err := dir.Readdirnames(-1); err == nil {
		t.Error("listed a view that is closed")
	}
	calls := m.calls.Load()
	if _, err := os.ReadFile(p + "/a"); err == nil || m.calls.Load() != calls {
		t.Errorf("read a file of a view that is closed: %v", err)
	}
	f.Close()
	dir.Close()
}

// Close waits until the Source is not used any more, but readers do not.
func TestCloseWhileReading(t *testing.T) {
	scratch.NeedRoot(t)
	m := newMemory()
	reading, goOn := make(chan struct{}), make(chan struct{})
	m.hook = func(uint64, int64) error {
		close(reading)
		<-goOn
		return nil
	}
	v, p := show(t, m)
	failed := make(chan error)
	go func() {
		_, err := os.ReadFile(p + "/a")
		failed <- err
	}()
	<-reading
	closed := make(chan error)
	go func() { closed <- v.Close() }()
	within(t, "the reader", func() {
		if err := <-failed; err == nil {
			t.Error("read what was not there yet")
		}
	})
	select {
	case <-closed:
		t.Error("Close did not wait for the Source")
	case <-time.After(100 * time.Millisecond):
	}
	close(goOn)
	within(t, "Close", func() {
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// A reader that is killed ends at once, whatever the Source does, and is in
// nobody's way.
func TestKilledReader(t *testing.T) {
	scratch.NeedRoot(t)
	m := newMemory()
	reading, goOn := make(chan struct{}, 10), make(chan struct{})
	for i := range uint64(3) {
		m.add(fmt.Sprint("slow", i), 3+i, 0o644, make([]byte, 100))
	}
	m.hook = func(number uint64, _ int64) error {
		if number >= 3 {
			reading <- struct{}{}
			<-goOn
		}
		return nil
	}
	_, p := show(t, m)
	t.Cleanup(func() { close(goOn) })
	for i := range 3 {
		c := other("content", p+fmt.Sprint("/slow", i))
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		within(t, "the reader", func() { <-reading })
		c.Process.Kill()
		within(t, "a killed reader", func() { c.Wait() })
		within(t, "another reader", func() {
			if b, err := os.ReadFile(p + "/a"); err != nil || string(b) != "content of a" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

// serve shows the directory of a file "a" until it is killed.
func serve(string) error {
	v, err := Mount(newMemory(), Options{})
	if err != nil {
		return err
	}
	fmt.Println(path(v))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// stop stops a process and waits until it is.
func stop(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the process is stopped", func() bool {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", c.Process.Pid))
		for _, task := range tasks {
			if b, _ := os.ReadFile(task); !bytes.Contains(b, []byte(") T ")) {
				return false
			}
		}
		return len(tasks) > 0
	})
}

// When the process that serves is killed, readers get errors and nothing is
// left; while it is stopped, readers wait and can be killed.
func TestServerStoppedAndKilled(t *testing.T) {
	scratch.NeedRoot(t)
	server := other("serve", "")
	p := start(t, server)
	dir, err := os.Open(p + "/.")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	number, err := fuse.Number(dir)
	if err != nil || !connected(t, number) {
		t.Fatalf("there is no connection %d: %v", number, err)
	}
	inherited := fmt.Sprintf("/proc/self/fd/%d", dir.Fd())

	stop(t, server)
	reader := other("content", fmt.Sprintf("/proc/%d/fd/%d/a", os.Getpid(), dir.Fd()))
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if reader.Process.Signal(syscall.Signal(0)) != nil {
		t.Error("the reader did not wait")
	}
	reader.Process.Kill()
	within(t, "a killed reader", func() { reader.Wait() })
	server.Process.Signal(syscall.SIGCONT)
	within(t, "a reader", func() {
		if b, err := os.ReadFile(inherited + "/a"); err != nil || string(b) != "content of a" {
			t.Errorf("%q, %v", b, err)
		}
	})

	// Another one waits when it is killed.
	stop(t, server)
	failed := make(chan error)
	go func() {
		var st unix.Stat_t
		failed <- unix.Fstatat(int(dir.Fd()), "nothing", &st, 0)
	}()
	time.Sleep(100 * time.Millisecond)
	server.Process.Kill()
	within(t, "a reader of a killed server", func() {
		if err := <-failed; err == nil || errors.Is(err, unix.ENOENT) {
			t.Errorf("a killed server answered: %v", err)
		}
	})
	server.Wait()
	dir.Close()
	waitFor(t, "no connection is left", func() bool { return !connected(t, number) })
}

// signals walks a tree while it gets signals, and says when it begins.
func signals(path string) error {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	fmt.Println("walking")
	for range 3 {
		if err := walk(path, true); err != nil {
			return err
		}
	}
	return nil
}

// Interrupted readers get what they ask for.
func TestSignals(t *testing.T) {
	scratch.NeedRoot(t)
	dir := t.TempDir()
	for i := range 300 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), bytes.Repeat([]byte{byte(i)}, 100*i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, p := show(t, newFolder(t, dir))
	c := other("signals", p)
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	if said, err := out.ReadString('\n'); said != "walking\n" {
		t.Fatal(said, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c.Process.Signal(syscall.SIGUSR1) == nil {
			time.Sleep(50 * time.Microsecond)
		}
	}()
	var rest []byte
	within(t, "the walk", func() { rest, _ = io.ReadAll(out) })
	if err := c.Wait(); err != nil {
		t.Errorf("%v: %s", err, rest)
	}
	<-done
}
