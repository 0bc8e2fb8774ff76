package mariadb

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"stillpoint/internal/writer"
)

// A mariadbd is a server of a test, which runs as the user nobody, on a socket
// alone.
type mariadbd struct {
	testing.TB
	dir  string // of all: data, socket, log …
	args []string
	stop func()
	db   *sql.DB
}

// As whom the servers run. The package with the server alone has no user for
// it.
var serverUser = sync.OnceValues(func() (*syscall.Credential, error) {
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err, err2)
})

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// owned makes a directory of the server's user. Its name is short: that of a
// socket has at most 107 bytes.
func owned(t testing.TB) string {
	t.Helper()
	dir, err := ownedDir()
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, err)
	return dir
}

func ownedDir() (string, error) {
	as, err := serverUser()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "my-")
	if err != nil {
		return "", err
	}
	return dir, os.Chown(dir, int(as.Uid), int(as.Gid))
}

// small are settings that make a small server. What is committed is given to
// the kernel at once, and not synced.
var small = []string{
	"--no-defaults", "--innodb-data-file-path=ibdata1:5M:autoextend", "--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M",
	"--innodb-flush-log-at-trx-commit=2", "--innodb-use-native-aio=OFF", "--aria-log-file-size=8M", "--performance-schema=OFF",
	"--skip-networking", "--max-connections=30", "--key-buffer-size=1M", "--aria-pagecache-buffer-size=1M",
}

// made is what template has made.
var made string

// template is the data directory of a server that was never started, and is
// made when it is needed first.
var template = sync.OnceValues(func() (dir string, err error) {
	if dir, err = ownedDir(); err != nil {
		return "", err
	}
	made = dir
	c, err := program("mariadb-install-db", append(append([]string{}, small...), "--datadir="+dir+"/data",
		"--skip-test-db", "--skip-name-resolve", "--auth-root-authentication-method=socket", "--auth-root-socket-user=nobody")...)
	if err != nil {
		return dir, err
	}
	if out, err := c.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("mariadb-install-db: %w: %s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if made != "" {
		_ = os.RemoveAll(made)
	}
	os.Exit(code)
}

// program is a command of the server's user.
func program(name string, args ...string) (*exec.Cmd, error) {
	if !filepath.IsAbs(name) {
		for _, dir := range []string{"/usr/sbin", "/usr/bin"} {
			if _, err := os.Stat(dir + "/" + name); err == nil {
				name = dir + "/" + name
				break
			}
		}
	}
	as, err := serverUser()
	if err != nil {
		return nil, err
	}
	c := exec.Command(name, args...)
	c.SysProcAttr, c.Dir = &syscall.SysProcAttr{Credential: as}, "/"
	c.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	return c, nil
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	c, err := program(name, args...)
	must(t, err)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// start starts a server of its own for a test.
func start(t testing.TB, args ...string) *mariadbd {
	t.Helper()
	dir, err := template()
	must(t, err)
	s := &mariadbd{TB: t, dir: owned(t), args: args}
	run(t, "/bin/cp", "-a", dir+"/data", s.dir+"/data")
	s.serve()
	s.must("CREATE DATABASE IF NOT EXISTS d", "CREATE TABLE d.written (a INT) ENGINE=InnoDB", "INSERT INTO d.written VALUES (0)")
	return s
}

// serve starts the server, which also ends with this process.
func (s *mariadbd) serve() {
	s.Helper()
	cmd, err := program("mariadbd", append(append([]string{}, small...),
		append([]string{"--datadir=" + s.dir + "/data", "--socket=" + s.dir + "/s", "--pid-file=" + s.dir + "/pid"}, s.args...)...)...)
	must(s, err)
	cmd.Args = append([]string{"sh", "-c", `"$0" "$@" & cat >&2; kill -KILL $!; wait $!`}, append([]string{cmd.Path}, cmd.Args[1:]...)...)
	cmd.Path = "/bin/sh"
	log := s.dir + "/log"
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(s, err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	in, err := cmd.StdinPipe()
	must(s, err)
	must(s, cmd.Start())
	s.stop = sync.OnceFunc(func() { in.Close(); _ = cmd.Wait() })
	s.Cleanup(s.stop)
	s.db = s.open("root", "")
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := s.db.Ping()
		if err == nil {
			return
		}
		said, _ := os.ReadFile(log)
		if time.Now().After(end) || bytes.Contains(said, []byte("[ERROR] Aborting")) {
			s.Fatalf("the server does not start: %v: %s", err, said)
		}
	}
}

// open is a pool of connections of a user.
func (s *mariadbd) open(user, database string) *sql.DB {
	s.Helper()
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName, cfg.Logger = user, "unix", s.dir+"/s", database, &mysql.NopLogger{}
	cfg.DialFunc = func(ctx context.Context, _, addr string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", addr)
	}
	c, err := mysql.NewConnector(cfg)
	must(s, err)
	db := sql.OpenDB(c)
	db.SetMaxIdleConns(8) // no connection is ended that the test will need again
	s.Cleanup(func() { db.Close() })
	return db
}

func (s *mariadbd) must(statements ...string) {
	s.Helper()
	for _, q := range statements {
		if _, err := s.db.Exec(q); err != nil {
			s.Fatalf("%s: %v", q, err)
		}
	}
}

// As the checks of all writers want it.

func (s *mariadbd) ID() string          { return name + ":" + s.dir + "/s" }
func (s *mariadbd) Scope() writer.Scope { return writer.Scope{} }

func (s *mariadbd) Write(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, "INSERT INTO d.written VALUES (1)")
	return err
}

func (s *mariadbd) Process() int {
	b, err := os.ReadFile(s.dir + "/pid")
	must(s, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(s, err)
	return pid
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

// pause stops the server until the function returned has been called, so that
// its files show one instant.
func (s *mariadbd) pause() (resume func()) {
	s.Helper()
	pid := s.Process()
	must(s, syscall.Kill(pid, syscall.SIGSTOP))
	waitFor(s, func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err == nil && bytes.Contains(b, []byte(") T "))
	})
	resume = sync.OnceFunc(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	s.Cleanup(resume)
	return resume
}

// free waits until nobody has or waits for a lock of a backup, and sessions of
// ours are gone: all connections but one are clients of the test.
func (s *mariadbd) free() {
	s.Helper()
	must(s, s.Write(s.soon()))
	k, err := s.db.Conn(s.soon())
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
