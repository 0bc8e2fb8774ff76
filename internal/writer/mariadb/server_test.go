package mariadb

import (
	"context"
	"os"
	"testing"
	"time"

	"stillpoint/internal/writer"
	"stillpoint/internal/writer/servertest"
)

func TestMain(m *testing.M) { os.Exit(servertest.Tidy(m).Run()) }

// A mariadbd is a server of a test.
type mariadbd struct{ *servertest.MariaDB }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start starts a server of its own for a test.
func start(t testing.TB, args ...string) *mariadbd {
	t.Helper()
	s := &mariadbd{servertest.NewMariaDB(t, args...)}
	s.begin()
	return s
}

// begin makes the data and starts the server.
func (s *mariadbd) begin() {
	s.Helper()
	s.Create()
	s.Serve()
	s.Must("CREATE DATABASE IF NOT EXISTS d", "CREATE TABLE d.written (a INT) ENGINE=InnoDB", "INSERT INTO d.written VALUES (0)")
}

// As the checks of all writers want it.

func (s *mariadbd) ID() string          { return name + ":" + s.Socket() }
func (s *mariadbd) Scope() writer.Scope { return writer.Scope{} }

func (s *mariadbd) Write(ctx context.Context) error {
	_, err := s.DB.ExecContext(ctx, "INSERT INTO d.written VALUES (1)")
	return err
}

// instance finds it.
func (s *mariadbd) instance(o Options) writer.Instance {
	s.Helper()
	all, err := New(o).Discover(s.soon(), writer.Scope{})
	must(s, err)
	for _, in := range all {
		if in.About().ID == s.ID() {
			return in
		}
	}
	s.Fatalf("%s is not found", s.ID())
	return nil
}

// soon is a context that is generous.
func (s *mariadbd) soon() context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), 30*time.Second)
	s.Cleanup(cancel)
	return ctx
}

// free waits until nobody has or waits for a lock of a backup, and sessions of
// ours are gone: all connections but one are clients of the test.
func (s *mariadbd) free() {
	s.Helper()
	must(s, s.Write(s.soon()))
	k, err := s.DB.Conn(s.soon())
	must(s, err)
	defer k.Close()
	for _, q := range append(append([]string{"SET SESSION lock_wait_timeout = 10"}, stages.prepare...), append(stages.freeze, stages.thaw...)...) {
		if _, err := k.ExecContext(s.soon(), q); err != nil {
			s.Fatalf("%s: %v", q, err)
		}
	}
}

func waitFor(t testing.TB, what func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !what(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited for long, in vain")
		}
	}
}
