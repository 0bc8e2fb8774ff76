package redis

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/servertest"
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

// A server is a running redis-server.
type server struct{ *servertest.Redis }

func start(t testing.TB, args ...string) *server {
	t.Helper()
	return startIn(t, t.TempDir(), args...)
}

func startIn(t testing.TB, dir string, args ...string) *server {
	t.Helper()
	return startProgram(t, dir, append([]string{"--save", ""}, args...)...)
}

// startProgram starts one with these arguments before the others.
func startProgram(t testing.TB, dir string, args ...string) *server {
	t.Helper()
	s := &server{servertest.NewRedis(t, dir, args...)}
	s.Serve()
	return s
}

func (s *server) ID() string          { return "redis:" + s.Socket() }
func (s *server) Scope() writer.Scope { return writer.Scope{} }

// Write makes one change by a connection of its own.
func (s *server) Write(ctx context.Context) error {
	rc, err := redis.DialContext(ctx, "unix", s.Socket())
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = redis.DoContext(rc, ctx, "INCR", "changes")
	return err
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
	text, err := redis.String(s.Do("INFO", section), nil)
	must(s, err)
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+":"); ok {
			return value
		}
	}
	return ""
}
