package servertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"stillpoint/internal/sys/peer"
)

// A PostgreSQL is a cluster, of the user postgres. Its socket is in Dir.
type PostgreSQL struct {
	server
	DB *sql.DB // of the superuser
}

// NewPostgreSQL is a cluster that has to be made, or to be somewhere, and is
// then served.
func NewPostgreSQL(t testing.TB) *PostgreSQL {
	t.Helper()
	return &PostgreSQL{server: newServer(t, "pg-", "postgres")}
}

// postgreSQL has checksums, small WAL files, and syncs nothing. Besides the user
// whom it runs as, the roles teller and clerk may come in, if they are made.
var postgreSQL = &template{prefix: "pg-", user: "postgres", make: func(as *syscall.Credential, data string) error {
	initdb, err := ofPostgreSQL("initdb")
	if err != nil {
		return err
	}
	out, err := command(as, initdb, "--pgdata="+data, "--no-sync", "--data-checksums", "--wal-segsize=1", "--auth=peer", "--no-instructions").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
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
	return errors.Join(os.WriteFile(data+"/pg_hba.conf", []byte(hba), 0o600), os.WriteFile(data+"/postgresql.auto.conf", []byte(settings), 0o600))
}}

// ofPostgreSQL is the path of one of its programs.
func ofPostgreSQL(name string) (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("there is no %s", name)
	}
	return found[len(found)-1], nil
}

// Create makes the cluster.
func (c *PostgreSQL) Create() { c.Helper(); c.create(postgreSQL) }

// MoveWAL puts the WAL elsewhere, before the cluster is served.
func (c *PostgreSQL) MoveWAL(to string) {
	c.Helper()
	c.Run("/bin/mv", c.Data+"/pg_wal", to)
	c.Run("/bin/ln", "-s", to, c.Data+"/pg_wal")
}

// Run runs a program as the server's user, one of PostgreSQL's or that of a
// path.
func (c *PostgreSQL) Run(name string, args ...string) string {
	c.Helper()
	if !filepath.IsAbs(name) {
		var err error
		name, err = ofPostgreSQL(name)
		must(c, err)
	}
	return run(c, command(c.as, name, args...))
}

// Serve starts the server, with more arguments, and waits until it answers.
func (c *PostgreSQL) Serve(args ...string) {
	c.Helper()
	postgres, err := ofPostgreSQL("postgres")
	must(c, err)
	c.start("QUIT", postgres, append([]string{"-D", c.Data, "-k", c.Dir}, args...)...)
	c.DB = c.Open("postgres")
	c.wait(c.DB.Ping, "FATAL:  could not", "PANIC:", "WAL ends before")
}

// Open is a pool of connections of a role.
func (c *PostgreSQL) Open(role string) *sql.DB {
	c.Helper()
	cfg, err := pgx.ParseConfig("host=" + c.Dir + " user=" + role + " dbname=postgres sslmode=disable")
	must(c, err)
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return peer.Dial(ctx, c.Dir+"/.s.PGSQL.5432", int(c.as.Uid))
	}
	db := sql.OpenDB(stdlib.GetConnector(*cfg))
	c.Cleanup(func() { db.Close() })
	return db
}

// Must runs statements as the superuser.
func (c *PostgreSQL) Must(statements ...string) { c.Helper(); mustExec(c, c.DB, statements) }

func mustExec(t testing.TB, db *sql.DB, statements []string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}
