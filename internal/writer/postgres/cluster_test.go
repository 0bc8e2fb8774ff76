package postgres

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
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"stillpoint/internal/sys/peer"
	"stillpoint/internal/writer"
)

// A cluster is a server of a test, which runs as the user postgres, on a socket
// alone.
type cluster struct {
	testing.TB
	dir    string // of all: data, socket, log …
	socket string // directory
	data   string // resolved, or where it leads
	stop   func()
	db     *sql.DB
}

// As whom the servers run.
var postgresUser = sync.OnceValues(func() (*syscall.Credential, error) {
	u, err := user.Lookup("postgres")
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
	as, err := postgresUser()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "pg-")
	if err != nil {
		return "", err
	}
	return dir, os.Chown(dir, int(as.Uid), int(as.Gid))
}

// made is what template has made.
var made string

// template is a cluster that was never started, and is made when it is needed
// first.
var template = sync.OnceValues(func() (dir string, err error) {
	if dir, err = ownedDir(); err != nil {
		return "", err
	}
	made = dir
	init, err := program("initdb", "--pgdata="+dir+"/data", "--no-sync", "--data-checksums", "--wal-segsize=1", "--auth=peer", "--no-instructions")
	if err != nil {
		return dir, err
	}
	if out, err := init.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("initdb: %w: %s", err, out)
	}
	hba := "local all teller scram-sha-256\nlocal all clerk trust\nlocal all all peer\nlocal replication all peer\n"
	settings := `listen_addresses = ''
fsync = off
max_connections = 12
superuser_reserved_connections = 2
shared_buffers = 16MB
min_wal_size = 2MB
max_wal_size = 8MB
wal_level = replica
max_wal_senders = 2
max_replication_slots = 2
`
	return dir, errors.Join(os.WriteFile(dir+"/data/pg_hba.conf", []byte(hba), 0o600), os.WriteFile(dir+"/data/postgresql.auto.conf", []byte(settings), 0o600))
})

func TestMain(m *testing.M) {
	code := m.Run()
	if made != "" {
		_ = os.RemoveAll(made)
	}
	os.Exit(code)
}

// start starts a cluster of its own for a test. Where apart is set, WAL and a
// tablespace "side" are in directories of their own.
func start(t testing.TB, apart bool) *cluster {
	t.Helper()
	dir, err := template()
	must(t, err)
	c := &cluster{TB: t, dir: owned(t)}
	c.socket, c.data = c.dir, c.dir+"/data"
	run(t, "/bin/cp", "-a", dir+"/data", c.data)
	if apart {
		run(t, "/bin/mv", c.data+"/pg_wal", c.dir+"/wal")
		run(t, "/bin/ln", "-s", c.dir+"/wal", c.data+"/pg_wal")
		run(t, "/bin/mkdir", c.dir+"/side")
	}
	c.serve()
	if apart {
		c.must("CREATE TABLESPACE side LOCATION '" + c.dir + "/side'")
	}
	return c
}

// program is a command of the server's user.
func program(name string, args ...string) (*exec.Cmd, error) {
	if !filepath.IsAbs(name) {
		found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
		if err != nil || len(found) == 0 {
			return nil, fmt.Errorf("there is no %s", name)
		}
		name = found[len(found)-1]
	}
	as, err := postgresUser()
	if err != nil {
		return nil, err
	}
	c := exec.Command(name, args...)
	c.SysProcAttr, c.Dir = &syscall.SysProcAttr{Credential: as}, "/"
	c.Env = []string{"LC_ALL=C", "PGDATABASE=postgres", "PGUSER=postgres", "PATH=" + os.Getenv("PATH")}
	return c, nil
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	c, err := program(name, args...)
	must(t, err)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// serve starts the server, which also ends with this process.
func (c *cluster) serve() { c.Helper(); c.serveWith("-k", c.socket) }

func (c *cluster) serveWith(args ...string) {
	c.Helper()
	cmd, err := program("postgres")
	must(c, err)
	cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", `"$0" -D "$@" & cat >&2; kill -QUIT $!; wait $!`, cmd.Path, c.data}, args...)
	log := filepath.Join(c.dir, "log")
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(c, err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	in, err := cmd.StdinPipe()
	must(c, err)
	must(c, cmd.Start())
	c.stop = sync.OnceFunc(func() {
		if pid := c.Process(); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGCONT) // a stopped one does not end
		}
		in.Close()
		_ = cmd.Wait()
	})
	c.Cleanup(c.stop)
	c.db = c.open("postgres")
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := c.db.Ping()
		if err == nil {
			return
		}
		said, _ := os.ReadFile(log)
		if time.Now().After(end) || bytes.Contains(said, []byte("FATAL:  could not")) || bytes.Contains(said, []byte("PANIC:")) || bytes.Contains(said, []byte("WAL ends before")) {
			c.Fatalf("the server does not start: %v: %s", err, said)
		}
	}
}

// open is a pool of connections of a role.
func (c *cluster) open(role string) *sql.DB {
	c.Helper()
	as, err := postgresUser()
	must(c, err)
	cfg, err := pgx.ParseConfig("host=" + c.socket + " user=" + role + " dbname=postgres sslmode=disable")
	must(c, err)
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return peer.Dial(ctx, c.socket+"/.s.PGSQL.5432", int(as.Uid))
	}
	db := sql.OpenDB(stdlib.GetConnector(*cfg))
	c.Cleanup(func() { db.Close() })
	return db
}

func (c *cluster) must(statements ...string) {
	c.Helper()
	for _, s := range statements {
		if _, err := c.db.Exec(s); err != nil {
			c.Fatalf("%s: %v", s, err)
		}
	}
}

// As the checks of all writers want it.

func (c *cluster) ID() string          { return name + ":" + c.socket + ":5432" }
func (c *cluster) Scope() writer.Scope { return writer.Scope{} }

func (c *cluster) Write(ctx context.Context) error {
	_, err := c.db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS written (); INSERT INTO written DEFAULT VALUES")
	return err
}

// Process is the postmaster; 0 when it has ended.
func (c *cluster) Process() int {
	b, err := os.ReadFile(c.data + "/postmaster.pid")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, _ := strconv.Atoi(first)
	return pid
}

// instance finds it.
func (c *cluster) instance(o Options) writer.Instance {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), 30*time.Second)
	defer cancel()
	all, err := New(o).Discover(ctx, writer.Scope{})
	must(c, err)
	for _, in := range all {
		if in.About().ID == c.ID() {
			return in
		}
	}
	c.Fatalf("%s is not found", c.ID())
	return nil
}

// soon is a context that is generous.
func (c *cluster) soon() context.Context {
	ctx, cancel := context.WithTimeout(c.Context(), 30*time.Second)
	c.Cleanup(cancel)
	return ctx
}

// pause stops all processes of a server until the function returned has been
// called, so that its files show one instant.
func (c *cluster) pause() (resume func()) {
	c.Helper()
	all := []int{c.Process()}
	for known := 0; known < len(all); { // until no more are born
		known = len(all)
		for _, p := range all {
			must(c, syscall.Kill(p, syscall.SIGSTOP))
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", all[0], all[0]))
		must(c, err)
		for _, f := range strings.Fields(string(b)) {
			pid, _ := strconv.Atoi(f)
			if !slices.Contains(all, pid) {
				all = append(all, pid)
			}
		}
	}
	for _, p := range all {
		for b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p)); err == nil && !bytes.Contains(b, []byte(") T ")) && !bytes.Contains(b, []byte(") Z ")); {
			time.Sleep(time.Millisecond)
			b, err = os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		}
	}
	resume = sync.OnceFunc(func() {
		for _, p := range all {
			_ = syscall.Kill(p, syscall.SIGCONT)
		}
	})
	c.Cleanup(resume)
	return resume
}
