package postgres

import (
	"context"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/container"
	"stillpoint/internal/sys/peer"
	"stillpoint/internal/writer/trust"
)

// A conn is one connection, for one at a time.
type conn struct{ *pgconn.PgConn }

// byDSN is a server as somebody named it.
func byDSN(dsn string) (server, error) {
	c, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return server{}, problem.Newf(problem.WriterFailed, "", "the DSN of the writer %s: %w", name, err)
	}
	if dir, err := filepath.EvalSymlinks(c.Host); err == nil && filepath.IsAbs(c.Host) {
		c.Host = dir
	}
	return server{host: c.Host, port: c.Port, uid: -1, dsn: dsn}, nil
}

// connect connects as the options say, or else as the user whom the server runs
// as: initdb names the first role so.
func (w *postgres) connect(ctx context.Context, s server) (conn, error) {
	if s.dsn != "" {
		c, err := dial(ctx, s.dsn, func(*pgconn.Config) {})
		return c, failure(ctx, err)
	}
	roles := []string{w.User}
	if w.User == "" {
		roles = rolesOf(s.uid)
	}
	var c conn
	var err error
	for _, role := range roles {
		c, err = dial(ctx, w.dsn(s, role), func(cfg *pgconn.Config) {
			cfg.Password = w.Password // and not that of PGPASSWORD or ~/.pgpass, which is meant for others
			cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
				c, err := s.dial(ctx, w.as(s))
				if err != nil || w.Password == "" || w.names(s) {
					return c, err
				}
				if err := trust.Connected(c, users...); err != nil {
					c.Close()
					return nil, err
				}
				return c, nil
			}
		})
		if problem.CodeOf(failure(ctx, err)) != problem.WriterPassword {
			break
		}
	}
	return c, failure(ctx, err)
}

// users are what those are called whom packages and images make for a server.
var users = []string{"postgres", "postgresql"}

// names tells whether the options name the directory of a server's socket, where not
// everybody can put one.
func (w *postgres) names(s server) bool {
	return !s.contained && slices.ContainsFunc(w.Directories, func(dir string) bool {
		at, err := filepath.EvalSymlinks(dir)
		return err == nil && at == s.host && trust.Folder(at)
	})
}

// dial connects to the socket.
func (s server) dial(ctx context.Context, uid int) (net.Conn, error) {
	if !s.contained {
		return peer.Dial(ctx, s.socket(), uid)
	}
	f, err := container.Open(s.pid, s.socket())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return peer.DialFile(ctx, f, uid)
}

// as is the user whom the server is to see. Only root may be another than it
// is, and somebody who is to use a role of his own is seen as himself.
func (w *postgres) as(s server) int {
	if os.Geteuid() != 0 || w.User != "" {
		return os.Geteuid()
	}
	return s.uid
}

// rolesOf are names that the first role may have.
func rolesOf(uid int) []string {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil || u.Username == "postgres" {
		return []string{"postgres"}
	}
	return []string{u.Username, "postgres"}
}

func (w *postgres) dsn(s server, role string) string {
	d := "host=" + quoted(s.host) + " port=" + strconv.Itoa(int(s.port)) + " user=" + quoted(role) +
		" dbname=" + quoted(w.Database) + " sslmode=disable"
	if w.Password != "" {
		d += " password=" + quoted(w.Password)
	}
	return d
}

func quoted(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

func dial(ctx context.Context, dsn string, set func(*pgconn.Config)) (conn, error) {
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return conn{}, err
	}
	set(cfg)
	cfg.RuntimeParams["application_name"] = "stillpoint"
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return conn{}, err
	}
	// What roles and databases may have set is not for us.
	_, err = conn{c}.row(ctx, `SELECT count(set_config(name, '0', false)) FROM pg_settings
		WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_session_timeout', 'transaction_timeout')`)
	if err != nil {
		conn{c}.close()
		return conn{}, err
	}
	return conn{c}, nil
}

// row asks something that has one row.
func (c conn) row(ctx context.Context, sql string) ([]string, error) {
	r := c.ExecParams(ctx, sql, nil, nil, nil, nil).Read()
	if r.Err != nil {
		return nil, r.Err
	}
	if len(r.Rows) != 1 {
		return nil, problem.Newf(problem.WriterFailed, "", "%d rows of %s", len(r.Rows), sql)
	}
	var row []string
	for _, v := range r.Rows[0] {
		row = append(row, string(v))
	}
	return row, nil
}

// do runs a statement.
func (c conn) do(ctx context.Context, sql string) error {
	return c.ExecParams(ctx, sql, nil, nil, nil, nil).Read().Err
}

// close says good-bye, and waits for no answer for long.
func (c conn) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // there is nothing left to lose
}
