package cow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// PostgreSQL with its log on the volume, under pgbench.
func TestPostgreSQL(t *testing.T) {
	underWriters(t, map[string]func() program{"postgres": func() program { return &postgres{} }})
}

// A postgres is a database cluster under pgbench, whose tables have sums that
// are equal after each transaction.
type postgres struct {
	programs string // where PostgreSQL's are
	as       *syscall.SysProcAttr
	socket   string     // directory
	ended    chan error // of pgbench
	from, to int64      // transactions
}

func (d *postgres) start(r *rig, dir string) {
	r.must(os.Chmod(filepath.Dir(r.dir), 0o711)) // the way to the volume
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	r.must(err)
	if len(found) == 0 {
		r.Fatal("there is no PostgreSQL")
	}
	d.programs = found[len(found)-1]
	u, err := user.Lookup("postgres")
	r.must(err)
	uid, err := strconv.Atoi(u.Uid)
	r.must(err)
	gid, err := strconv.Atoi(u.Gid)
	r.must(err)
	d.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	r.must(os.Chown(dir, uid, gid))
	d.socket, err = os.MkdirTemp("", "pg-") // short: the name of a socket has 107 bytes
	r.must(err)
	r.Cleanup(func() { _ = os.RemoveAll(d.socket) })
	r.must(os.Chown(d.socket, uid, gid))

	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	data := filepath.Join(dir, "data")
	d.must(r, ctx, "initdb", "--pgdata="+data, "--no-sync", "--data-checksums", "--wal-segsize=1", "--auth=trust", "--no-instructions")
	r.must(os.WriteFile(filepath.Join(data, "postgresql.auto.conf"), []byte(`listen_addresses = ''
shared_buffers = 16MB
min_wal_size = 4MB
max_wal_size = 8MB
checkpoint_timeout = 30s
max_wal_senders = 0
wal_level = minimal
`), 0o600))
	stop, err := d.serve(ctx, data, d.socket)
	r.must(err)
	r.Cleanup(stop)
	d.must(r, ctx, "psql", "-h", d.socket, "-qc", "CREATE EXTENSION amcheck")
	d.must(r, ctx, "pgbench", "-h", d.socket, "-q", "--initialize", "--scale=1")
	bench := d.command(context.Background(), "pgbench", "-h", d.socket, "--no-vacuum", "--client=4", "--time=100000", "postgres")
	r.must(bench.Start())
	d.ended = make(chan error, 1)
	go func() { d.ended <- bench.Wait() }()
	r.Cleanup(func() { _ = bench.Process.Kill() })
	waitFor(r.T, func() bool {
		n, err := d.transactions(ctx, d.socket)
		return err == nil && n > 50
	})
}

func (d *postgres) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(d.programs, name), args...)
	c.SysProcAttr, c.Dir = d.as, "/"
	c.Env = []string{"LC_ALL=C", "PGDATABASE=postgres", "PGUSER=postgres", "PATH=" + os.Getenv("PATH")}
	return c
}

func (d *postgres) run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := d.command(ctx, name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return strings.TrimSpace(string(out)), err
}

func (d *postgres) must(r *rig, ctx context.Context, name string, args ...string) {
	r.Helper()
	_, err := d.run(ctx, name, args...)
	r.must(err)
}

// serve starts a server, which also ends with this process.
func (d *postgres) serve(ctx context.Context, data, socket string) (stop func(), err error) {
	c := d.command(context.Background(), "postgres")
	c.Path, c.Args = "/bin/sh", []string{"sh", "-c", `"$0" -D "$1" -k "$2" & cat >&2; kill -QUIT $!; wait $!`, c.Path, data, socket}
	log := filepath.Join(socket, "log")
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c.Stdout, c.Stderr = out, out
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	stop = func() { in.Close(); _ = c.Wait() }
	for ctx.Err() == nil {
		if _, err = d.run(ctx, "pg_isready", "-q", "-h", socket); err == nil {
			return stop, nil
		}
		if b, _ := os.ReadFile(log); strings.Contains(string(b), "FATAL:  could not") || strings.Contains(string(b), "PANIC:") {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	said, _ := os.ReadFile(log)
	return nil, fmt.Errorf("the server does not start: %w: %s", errors.Join(err, ctx.Err()), said)
}

// transactions is how many pgbench has committed.
func (d *postgres) transactions(ctx context.Context, socket string) (n int64, err error) {
	out, err := d.run(ctx, "psql", "-h", socket, "-Atc", "SELECT count(*) FROM pgbench_history")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(out, 10, 64)
}

func (d *postgres) before(r *rig) {
	var err error
	d.from, err = d.transactions(r.Context(), d.socket)
	r.must(err)
}

func (d *postgres) after(r *rig) {
	var err error
	d.to, err = d.transactions(r.Context(), d.socket)
	r.must(err)
	select {
	case err := <-d.ended:
		r.Fatalf("pgbench has ended: %v", err)
	default:
	}
}

func (d *postgres) check(ctx context.Context, dir string) (err error) {
	data := filepath.Join(dir, "data")
	if err := os.Remove(filepath.Join(data, "postmaster.pid")); err != nil {
		return err // a server that runs has one
	}
	socket, err := os.MkdirTemp("", "pg-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(socket)
	if err := os.Chown(socket, int(d.as.Credential.Uid), int(d.as.Credential.Gid)); err != nil {
		return err
	}
	stop, err := d.serve(ctx, data, socket)
	if err != nil {
		return err
	}
	err = d.examine(ctx, socket)
	if err == nil {
		_, err = d.run(ctx, "pg_ctl", "--pgdata="+data, "--mode=fast", "--wait", "stop")
	}
	stop()
	said, _ := os.ReadFile(filepath.Join(socket, "log"))
	if err == nil && !strings.Contains(string(said), "redo done") {
		err = errors.New("nothing was recovered")
	}
	if err == nil {
		_, err = d.run(ctx, "pg_checksums", "--check", "--pgdata="+data)
	}
	if err != nil {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// examine looks at a recovered cluster.
func (d *postgres) examine(ctx context.Context, socket string) error {
	n, err := d.transactions(ctx, socket)
	if err != nil {
		return err
	}
	if n < d.from || n > d.to {
		return fmt.Errorf("%d transactions, and there were between %d and %d", n, d.from, d.to)
	}
	sums, err := d.run(ctx, "psql", "-h", socket, "-Atc", `SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
		(SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history)`)
	if err != nil {
		return err
	}
	if s := strings.Split(sums, "|"); len(s) != 4 || s[0] != s[1] || s[0] != s[2] || s[0] != s[3] {
		return fmt.Errorf("the sums are %s", sums)
	}
	_, err = d.run(ctx, "pg_amcheck", "-h", socket, "--all", "--install-missing", "--heapallindexed", "--jobs=2")
	return err
}
