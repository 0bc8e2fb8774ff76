package mariadb

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/container"
	"stillpoint/internal/sys/peer"
	"stillpoint/internal/writer/trust"
)

// A conn is one connection, for one at a time, and its number in the server.
type conn struct {
	*sql.Conn
	db *sql.DB
	id int64
}

// A login is as whom to come in, and whom the server sees at the socket.
type login struct {
	user string
	uid  int
}

// users are what those are called whom packages and images make for a server.
var users = []string{"mysql", "mariadb"}

// names tells whether the options name the socket of a server, where not everybody
// can put one.
func (w *mariadb) names(s server) bool {
	return !s.contained && slices.ContainsFunc(w.Sockets, func(pattern string) bool {
		paths, _ := filepath.Glob(pattern)
		return slices.ContainsFunc(paths, func(p string) bool {
			at, err := filepath.EvalSymlinks(p)
			return err == nil && at == s.socket && trust.Folder(filepath.Dir(p)) && trust.Folder(filepath.Dir(at))
		})
	})
}

// logins are root, and the user whom the server runs as: mariadb-install-db
// gives both all rights by unix_socket.
func (w *mariadb) logins(s server) []login {
	me := os.Geteuid()
	if w.User != "" {
		return []login{{w.User, me}}
	}
	if me != 0 {
		return []login{{nameOf(me), me}}
	}
	all := []login{{"root", me}, {nameOf(s.uid), s.uid}}
	if s.contained { // where users have other numbers
		all = append(all, login{"mysql", s.uid})
	}
	return all
}

// dial connects to the socket.
func (s server) dial(ctx context.Context, uid int) (net.Conn, error) {
	if !s.contained {
		return peer.Dial(ctx, s.socket, uid)
	}
	f, err := container.Open(s.pid, s.socket)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return peer.DialFile(ctx, f, uid)
}

func nameOf(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "mysql"
}

// connect connects as the options say, or else as one who is let in.
func (w *mariadb) connect(ctx context.Context, s server) (c conn, err error) {
	for _, l := range w.logins(s) {
		c, err = w.dial(ctx, s, l)
		if err = failure(ctx, err); problem.CodeOf(err) != problem.WriterPassword {
			break
		}
	}
	return c, err
}

func (w *mariadb) dial(ctx context.Context, s server, l login) (conn, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr = l.user, w.Password, "unix", s.socket
	cfg.Logger = &mysql.NopLogger{} // it would write while volumes are frozen
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := s.dial(ctx, l.uid)
		if err != nil || w.Password == "" || w.names(s) {
			return c, err
		}
		if err := trust.Connected(c, users...); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return conn{}, err
	}
	db := sql.OpenDB(connector)
	k, err := db.Conn(ctx)
	if err != nil {
		db.Close()
		return conn{}, err
	}
	c := conn{Conn: k, db: db}
	if err := c.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&c.id); err != nil {
		c.close()
		return conn{}, err
	}
	return c, nil
}

// close says good-bye, and waits for no answer.
func (c conn) close() {
	_ = c.Conn.Close() // back into the pool,
	_ = c.db.Close()   // which closes it
}

// set sets a variable of the session, in whole seconds, of which at least one.
func (c conn) set(ctx context.Context, variable string, d time.Duration) error {
	_, err := c.ExecContext(ctx, fmt.Sprintf("SET SESSION %s = %d", variable, max(1, int64(d/time.Second))))
	return err
}
