//go:build bench

package cow_test

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A database is a PostgreSQL cluster on the volume, with the tables of pgbench.
// Its server listens on a socket beside it, and runs as postgres.
type database struct {
	*rig
	programs string // where PostgreSQL's are
	as       *syscall.Credential
	data     string
	socket   string
	logs     string // on another volume
}

// scale is about 150 MiB of tables, which the server's own memory does not hold.
const scale = "10"

const databaseSettings = `listen_addresses = ''
shared_buffers = 32MB
max_wal_senders = 0
wal_level = minimal
`

func newDatabase(r *rig) *database {
	r.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	r.must(err)
	if len(found) == 0 {
		r.Fatal("there is no PostgreSQL: ./test/packages bench installs it")
	}
	d := &database{rig: r, programs: found[len(found)-1], data: r.path("postgres/data"), socket: r.path("postgres"), logs: r.TempDir()}
	d.as, err = nobodyElse("postgres")
	r.must(err)
	r.must(os.Chmod(filepath.Dir(r.dir), 0o711)) // the way to the volume
	r.must(os.Mkdir(d.socket, 0o755))
	for dir := d.logs; dir != os.TempDir(); dir = filepath.Dir(dir) {
		r.must(os.Chmod(dir, 0o711))
	}
	for _, dir := range []string{d.socket, d.logs} {
		r.must(os.Chown(dir, int(d.as.Uid), int(d.as.Gid)))
	}
	d.run("initdb", "--pgdata="+d.data, "--no-sync", "--auth=trust", "--no-instructions")
	r.must(os.WriteFile(filepath.Join(d.data, "postgresql.auto.conf"), []byte(databaseSettings), 0o600))
	defer d.serve()()
	d.run("pgbench", "--quiet", "--initialize", "--scale="+scale)
	return d
}

// nobodyElse is who runs a program as this user.
func nobodyElse(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

func (d *database) command(name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(d.Context(), filepath.Join(d.programs, name), args...)
	c.SysProcAttr, c.Dir = &syscall.SysProcAttr{Credential: d.as}, "/"
	c.Env = []string{"LC_ALL=C", "PGHOST=" + d.socket, "PGDATABASE=postgres", "PGUSER=postgres", "PATH=" + os.Getenv("PATH")}
	return c
}

// output collects what a program says.
func output(c *exec.Cmd) *strings.Builder {
	said := &strings.Builder{}
	c.Stdout, c.Stderr = said, said
	return said
}

func (d *database) run(name string, args ...string) {
	d.Helper()
	if out, err := d.command(name, args...).CombinedOutput(); err != nil {
		d.Fatalf("%s: %v: %s", name, err, out)
	}
}

// serve starts the server, and returns when it answers. It ends with this
// process, too, because its standard input does.
func (d *database) serve() (stop func()) {
	d.Helper()
	c := d.command("postgres")
	c.Path, c.Args = "/bin/sh", []string{"sh", "-c", `"$0" -D "$1" -k "$2" & cat >&2; kill -INT $!; wait $!`, c.Path, d.data, d.socket}
	log, err := os.CreateTemp(d.logs, "server")
	d.must(err)
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	in, err := c.StdinPipe()
	d.must(err)
	d.must(c.Start())
	stop = func() { in.Close(); _ = c.Wait() }
	ctx, cancel := context.WithTimeout(d.Context(), time.Minute)
	defer cancel()
	for d.command("pg_isready", "-q").Run() != nil {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			stop()
			said, _ := os.ReadFile(log.Name())
			d.Fatalf("the server does not answer: %s", said)
		}
	}
	return stop
}
