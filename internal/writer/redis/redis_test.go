package redis

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/writertest"
)

// One on a socket with an append-only file, and one on a port with an RDB file.
func TestAppended(t *testing.T) { run(t, "--appendonly", "yes", "--appendfsync", "no") }
func TestSaved(t *testing.T)    { run(t, "--save", "3600 1", "--port", "0") }

func run(t *testing.T, args ...string) {
	writertest.Run(t, writertest.Host{
		New:      func(testing.TB) writer.Writer { return New(Options{}) },
		Start:    func(t testing.TB) writertest.App { return start(t, args...) },
		Suspends: true,
	})
}

// A server is a running redis-server, which ends with the test, and with the
// test process however that ends.
type server struct {
	testing.TB
	dir    string // its data
	socket string
	pid    int
	stop   func()
}

func start(t testing.TB, args ...string) *server {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	return startIn(t, dir, args...)
}

func startIn(t testing.TB, dir string, args ...string) *server {
	t.Helper()
	return startProgram(t, dir, append([]string{"--save", ""}, args...)...)
}

// startProgram starts one with these arguments before the others.
func startProgram(t testing.TB, dir string, args ...string) *server {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	must(t, err)
	uid, gid := unprivileged(t)
	dir, err = filepath.EvalSymlinks(dir)
	must(t, err)
	must(t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err == nil {
			err = os.Chown(p, uid, gid)
		}
		return err
	}))
	at, err := os.MkdirTemp("", "redis-") // short: the name of a socket has 107 bytes
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(at) })
	must(t, os.Chown(at, uid, gid))
	s := &server{TB: t, dir: dir, socket: filepath.Join(at, "socket")}
	all := append(append([]string{program}, args...), "--dir", dir, "--unixsocket", s.socket, "--port", "0", "--logfile", filepath.Join(at, "log"))
	c := exec.Command("/bin/sh", append([]string{"-c", `"$@" & echo $!; cat; kill -CONT $!; kill -KILL $!; wait`, "sh"}, all...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	c.Dir = "/"
	in, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	stopped := false
	s.stop = func() {
		if !stopped {
			stopped = true
			in.Close()
			_ = c.Wait()
		}
	}
	t.Cleanup(s.stop)
	_, err = fmt.Fscan(out, &s.pid)
	must(t, err)
	go func() { _, _ = io.Copy(io.Discard, out) }()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if rc, err := redis.Dial("unix", s.socket); err == nil {
			rc.Close()
			return s
		}
		if time.Now().After(end) {
			said, _ := os.ReadFile(filepath.Join(at, "log"))
			t.Fatalf("the server does not start: %s", said)
		}
	}
}

// unprivileged is the user of the server.
func unprivileged(t testing.TB) (uid, gid int) {
	u, err := user.Lookup("redis")
	must(t, err)
	uid, err = strconv.Atoi(u.Uid)
	must(t, err)
	gid, err = strconv.Atoi(u.Gid)
	must(t, err)
	return uid, gid
}

func (s *server) ID() string          { return "redis:" + s.socket }
func (s *server) Scope() writer.Scope { return writer.Scope{} }
func (s *server) Process() int        { return s.pid }

// Write makes one change by a connection of its own.
func (s *server) Write(ctx context.Context) error {
	rc, err := redis.DialContext(ctx, "unix", s.socket)
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = redis.DoContext(rc, ctx, "INCR", "changes")
	return err
}

// do is a client's question.
func (s *server) do(command string, args ...any) any {
	s.Helper()
	rc, err := redis.Dial("unix", s.socket, redis.DialReadTimeout(20*time.Second))
	must(s, err)
	defer rc.Close()
	reply, err := rc.Do(command, args...)
	must(s, err)
	return reply
}

// instance finds the server.
func (s *server) instance(o Options) writer.Instance {
	s.Helper()
	all, err := New(o).Discover(s.within(20*time.Second), writer.Scope{})
	must(s, err)
	for _, in := range all {
		if in.About().ID == s.ID() {
			return in
		}
	}
	s.Fatalf("%s is not found", s.ID())
	return nil
}

func (s *server) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	s.Cleanup(cancel)
	return ctx
}

func (s *server) prepare(o Options, n writer.Need) writer.Session {
	s.Helper()
	session, err := s.instance(o).Prepare(s.within(20*time.Second), n)
	must(s, err)
	return session
}

// goesOn fails unless a change is made within the time.
func (s *server) goesOn(limit time.Duration) {
	s.Helper()
	must(s, s.Write(s.within(limit)))
}

// wants fails unless an error has the code.
func wants(t testing.TB, code problem.Code, err error) {
	t.Helper()
	if problem.CodeOf(err) != code {
		t.Errorf("want %q, got %q: %v", code, problem.CodeOf(err), err)
	} else {
		t.Log(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// waitFor waits until a condition holds.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in 20 s", what)
		}
	}
}

func (s *server) info(section, key string) string {
	s.Helper()
	text, err := redis.String(s.do("INFO", section), nil)
	must(s, err)
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+":"); ok {
			return value
		}
	}
	return ""
}
