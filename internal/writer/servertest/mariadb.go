package servertest

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// A MariaDB is a server of the user nobody, since the package with the server
// alone has none for it.
type MariaDB struct {
	server
	Args []string
	DB   *sql.DB // of root
}

// NewMariaDB is a server whose data have to be made, or to be somewhere, and
// which is then served.
func NewMariaDB(t testing.TB, args ...string) *MariaDB {
	t.Helper()
	return &MariaDB{server: newServer(t, "my-", "nobody"), Args: args}
}

// small are settings that make a small server. What is committed is given to
// the kernel at once, and not synced.
var small = []string{
	"--no-defaults", "--innodb-data-file-path=ibdata1:5M:autoextend", "--innodb-autoextend-increment=1", "--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M",
	"--innodb-flush-log-at-trx-commit=2", "--innodb-use-native-aio=OFF", "--aria-log-file-size=8M", "--performance-schema=OFF",
	"--skip-networking", "--max-connections=30", "--key-buffer-size=1M", "--aria-pagecache-buffer-size=1M",
}

// smallMySQL are the same for MySQL.
var smallMySQL = []string{
	"--no-defaults", "--innodb-redo-log-capacity=8M", "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=2",
	"--innodb-use-native-aio=OFF", "--skip-networking", "--mysqlx=OFF", "--max-connections=30", "--secure-file-priv=",
}

// other is a mysqld that takes the place of MariaDB's; see test/others.
var other = os.Getenv("STILLPOINT_TEST_MYSQLD")

// settings are those of the server in use.
func settings() []string {
	if other != "" {
		return smallMySQL
	}
	return small
}

var mariaDB = &template{prefix: "my-", user: "nobody", make: func(as *syscall.Credential, data string) error {
	if other != "" {
		if out, err := command(as, other, slices.Concat(smallMySQL, []string{"--initialize-insecure", "--datadir=" + data})...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", other, err, out)
		}
		return nil
	}
	install, err := ofMariaDB("mariadb-install-db")
	if err != nil {
		return err
	}
	out, err := command(as, install, slices.Concat(small, []string{"--datadir=" + data, "--skip-test-db", "--skip-name-resolve",
		"--auth-root-authentication-method=socket", "--auth-root-socket-user=nobody"})...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mariadb-install-db: %w: %s", err, out)
	}
	return nil
}}

// ofMariaDB is the path of one of its programs.
func ofMariaDB(name string) (string, error) {
	if name == "mariadbd" && other != "" {
		return other, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/usr/bin/"} {
		if _, err := os.Stat(dir + name); err == nil {
			return dir + name, nil
		}
	}
	return "", fmt.Errorf("there is no %s", name)
}

// Create makes the data.
func (s *MariaDB) Create() { s.Helper(); s.create(mariaDB) }

// Socket is where it listens.
func (s *MariaDB) Socket() string { return s.Dir + "/s" }

// Run runs a program of this path as the server's user.
func (s *MariaDB) Run(path string, args ...string) string {
	s.Helper()
	return run(s, command(s.as, path, args...))
}

// Serve starts the server, with more arguments, and waits until it answers.
func (s *MariaDB) Serve(args ...string) {
	s.Helper()
	mariadbd, err := ofMariaDB("mariadbd")
	must(s, err)
	s.start("KILL", mariadbd, slices.Concat(settings(), []string{"--datadir=" + s.Data, "--socket=" + s.Socket(), "--pid-file=" + s.Dir + "/pid"}, s.Args, args)...)
	s.DB = s.Open("root", "")
	s.wait(s.DB.Ping, "[ERROR] Aborting")
}

// Open is a pool of connections of a user.
func (s *MariaDB) Open(user, database string) *sql.DB {
	s.Helper()
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName, cfg.Logger = user, "unix", s.Socket(), database, &mysql.NopLogger{}
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

// Must runs statements as root.
func (s *MariaDB) Must(statements ...string) { s.Helper(); mustExec(s, s.DB, statements) }

// Sound lets mariadb-check look at all tables. Whoever is not as it should be
// fails the test.
func (s *MariaDB) Sound() {
	s.Helper()
	check, err := ofMariaDB("mariadb-check")
	must(s, err)
	out := run(s, command(nil, check, "--no-defaults", "--socket="+s.Socket(), "--user=root", "--all-databases", "--extended"))
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] != "OK" {
			s.Errorf("mariadb-check: %s", out)
			return
		}
	}
}
