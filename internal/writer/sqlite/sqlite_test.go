package sqlite

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/writertest"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

const long = 20 * time.Second // in which something must have happened

// Nobody but those who write has the database open: each time the log is made
// and removed again.
func TestRollback(t *testing.T) { run(t, "delete") }
func TestLog(t *testing.T)      { run(t, "wal") }

func run(t *testing.T, mode string) {
	writertest.Run(t, writertest.Host{
		New:      func(testing.TB) writer.Writer { return New(Options{}) },
		Start:    func(t testing.TB) writertest.App { return create(t, t.TempDir()+"/app.db", mode) },
		Suspends: true,
	})
}

// A database is one that programs use by SQLite's own library.
type database struct {
	testing.TB
	path string
}

func create(t testing.TB, path, mode string) *database {
	t.Helper()
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	must(t, err)
	must(t, os.Chmod(filepath.Dir(dir), 0o755)) // the way to it, for its owner
	d := &database{t, filepath.Join(dir, filepath.Base(path))}
	d.do("PRAGMA journal_mode=" + mode + "; CREATE TABLE changes (client, n); CREATE INDEX i ON changes (n);")
	return d
}

func (d *database) ID() string          { return "sqlite:" + d.path }
func (d *database) Scope() writer.Scope { return writer.Scope{Paths: []string{filepath.Dir(d.path)}} }
func (d *database) Process() int        { return 0 }

// Write makes one change.
func (d *database) Write(ctx context.Context) error {
	_, err := d.run(ctx, "INSERT INTO changes VALUES (0, 1)")
	return err
}

// run lets SQLite's own program work, which waits for locks as long as ctx
// says.
func (d *database) run(ctx context.Context, sql string) (string, error) {
	c := exec.CommandContext(ctx, "sqlite3", "-bail", "-cmd", ".timeout 60000", d.path, sql)
	c.WaitDelay = time.Second
	out, err := c.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("sqlite3: %w: %s", err, out)
	}
	return strings.TrimSpace(string(out)), err
}

func (d *database) do(sql string) string {
	d.Helper()
	out, err := d.run(d.within(long), sql)
	must(d, err)
	return out
}

func (d *database) within(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	d.Cleanup(cancel)
	return ctx
}

func (d *database) instance(o Options) writer.Instance {
	d.Helper()
	all, err := New(o).Discover(d.within(long), d.Scope())
	must(d, err)
	for _, in := range all {
		if in.About().ID == d.ID() {
			return in
		}
	}
	d.Fatalf("%s is not found", d.ID())
	return nil
}

func (d *database) prepare(o Options) writer.Session {
	d.Helper()
	s, err := d.instance(o).Prepare(d.within(long), writer.Need{Window: time.Minute})
	must(d, err)
	return s
}

func (d *database) freeze(s writer.Session) {
	d.Helper()
	must(d, s.Freeze(d.within(long)))
}

func (d *database) thaw(s writer.Session) {
	d.Helper()
	_, err := s.Thaw(d.within(long))
	must(d, err)
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
	for end := time.Now().Add(long); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in %v", what, long)
		}
	}
}
