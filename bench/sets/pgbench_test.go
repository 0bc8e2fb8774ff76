//go:build bench

package sets_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/scratch"
)

// A database is a PostgreSQL cluster of some 150 MiB on an ext4 volume that the
// agent watches, and what is needed to back it up.
type database struct {
	*testing.T
	bin  string // PostgreSQL's
	as   *syscall.Credential
	dir  string // of the volume
	home string // of the agent and the repository
	run  string // the program
}

func newDatabase(t *testing.T) *database {
	d := &database{T: t, dir: scratch.New(t, "ext4", 2*scratch.GiB).Dir, home: t.TempDir()}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		t.Fatalf("there is no PostgreSQL: ./test/packages bench installs it (%v)", err)
	}
	d.bin = found[len(found)-1]
	u, err := user.Lookup("postgres")
	d.must(err)
	uid, err := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	d.must(errors.Join(err, err2, os.Chmod(filepath.Dir(d.dir), 0o711), os.Chown(d.dir, uid, gid)))
	d.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	d.run = filepath.Join(d.home, "stillpoint")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", d.run, "stillpoint/cmd/stillpoint")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	d.agent()
	d.postgres("initdb", "--pgdata="+d.dir+"/data", "--no-sync", "--auth=trust", "--no-instructions")
	d.serve()
	d.postgres("pgbench", "--quiet", "--initialize", "--scale=10")
	d.stillpoint("init")
	return d
}

func (d *database) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// throughput compares the transactions while one backup follows the other with
// those without, in turn.
func throughput(d *database, rounds int) {
	var shares, with, without []float64
	backups := 0
	for i := range rounds {
		sides := []func(){
			func() { without = append(without, d.transactions()) },
			func() {
				stop := d.backingUp(&backups)
				with = append(with, d.transactions())
				stop()
			},
		}
		sides[i%2]()
		sides[1-i%2]()
		shares = append(shares, with[i]/without[i])
	}
	slices.Sort(shares)
	fmt.Printf("\npgbench, 4 clients, transactions in a second: without %.0f, with %.0f; the rounds' shares %.2f, median %.2f, %d backups\n",
		without, with, shares, shares[len(shares)/2], backups)
}

// lasting is how long transactions are counted.
const lasting = 12 * time.Second

var tps = regexp.MustCompile(`tps = ([0-9.]+)`)

func (d *database) transactions() float64 {
	d.Helper()
	d.postgres("psql", "-qc", "CHECKPOINT")
	said := d.postgres("pgbench", "--no-vacuum", "--client=4", "--time="+strconv.Itoa(int(lasting.Seconds())))
	m := tps.FindStringSubmatch(said)
	if m == nil {
		d.Fatalf("pgbench says %s", said)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	d.must(err)
	return n
}

// backingUp makes backups until stop.
func (d *database) backingUp(done *int) (stop func()) {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-over:
				return
			default:
			}
			d.stillpoint("backup", d.dir, "--require", "application")
			*done++
		}
	}()
	return func() { close(over); <-ended }
}

func (d *database) stillpoint(args ...string) {
	if out, err := d.command(args...).CombinedOutput(); err != nil {
		d.Errorf("stillpoint %s: %v: %s", args[0], err, out)
	}
}

func (d *database) command(args ...string) *exec.Cmd {
	c := exec.CommandContext(d.Context(), d.run, args...)
	c.Env = append(os.Environ(), "HOME="+d.home, "STILLPOINT_REPO="+d.home+"/repo", "STILLPOINT_PASSWORD=a secret",
		"STILLPOINT_STATE="+d.home+"/state", "STILLPOINT_AGENT="+d.home+"/run/agent.sock", "STILLPOINT_CONFIG="+d.home+"/config.yaml")
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 20 * time.Second
	return c
}

// agent starts the agent, so that the server's files are opened before its eyes.
func (d *database) agent() {
	d.must(os.WriteFile(d.home+"/config.yaml", []byte("writers: {postgresql: {sockets: ["+d.dir+"]}}\n"), 0o600))
	c := d.command("agent", d.dir)
	c.Stderr = os.Stderr
	d.must(c.Start())
	d.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
	})
	d.soon("the agent", func() bool { return d.command("agent", "status").Run() == nil })
}

func (d *database) soon(what string, there func() bool) {
	d.Helper()
	for end := time.Now().Add(time.Minute); !there(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			d.Fatalf("%s does not answer", what)
		}
	}
}

func (d *database) program(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(d.bin, name), args...)
	c.SysProcAttr, c.Dir = &syscall.SysProcAttr{Credential: d.as}, "/"
	c.Env = []string{"LC_ALL=C", "PGHOST=" + d.dir, "PGDATABASE=postgres", "PGUSER=postgres", "PATH=" + os.Getenv("PATH")}
	return c
}

func (d *database) postgres(name string, args ...string) string {
	d.Helper()
	out, err := d.program(d.Context(), name, args...).CombinedOutput()
	if err != nil {
		d.Fatalf("%s: %v: %s", name, err, out)
	}
	return string(out)
}

// serve starts the server, which ends before the volume does, and with this
// process, because its standard input does.
func (d *database) serve() {
	c := d.program(context.Background(), "postgres")
	c.Path, c.Args = "/bin/sh", []string{"sh", "-c", `"$0" -D "$1/data" -k "$1" -c listen_addresses= & cat >&2; kill -INT $!; wait $!`, c.Path, d.dir}
	in, err := c.StdinPipe()
	d.must(err)
	d.must(c.Start())
	d.Cleanup(func() {
		in.Close()
		_ = c.Wait()
	})
	d.soon("the server", func() bool { return d.program(d.Context(), "pg_isready", "-q").Run() == nil })
}
