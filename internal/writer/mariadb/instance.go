package mariadb

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// An instance is a running server.
type instance struct {
	of    *mariadb
	at    server
	about writer.About
}

// instance asks a server what it is. It is nil when nobody listens there.
func (w *mariadb) instance(ctx context.Context, s server) *instance {
	in := &instance{of: w, at: s, about: writer.About{ID: s.id(), Writer: name}}
	var further []string
	c, err := w.connect(ctx, s)
	if err != nil {
		if s.data == "" && !s.contained && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)) {
			return nil // what is left of one that ran
		}
	} else {
		defer c.close()
		if v, err := c.variables(ctx); err == nil {
			in.about.Version = v["version"]
			if !strings.Contains(in.about.Version, "MariaDB") {
				in.about.Version = "MySQL " + in.about.Version
			}
			further = directories(v)
		}
	}
	if s.data != "" {
		in.about.Paths, err = pathsOf(s.data, further, s.resolve)
		if err != nil && s.elsewhere() {
			in.at.unseen = err
		}
	}
	return in
}

// asked are variables of MariaDB and MySQL; not each is in both.
const asked = `SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'innodb_data_home_dir', 'innodb_log_group_home_dir',
	'innodb_undo_directory', 'aria_log_dir_path', 'log_bin_basename')`

func (c conn) variables(ctx context.Context) (map[string]string, error) {
	rows, err := c.QueryContext(ctx, asked)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]string{}
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		all[name] = value
	}
	return all, rows.Err()
}

// directories are where files may be beside the data directory. The binary log
// is one of them: what InnoDB has prepared it commits, after a crash, by what
// that says.
func directories(v map[string]string) []string {
	all := []string{v["innodb_data_home_dir"], v["innodb_log_group_home_dir"], v["innodb_undo_directory"], v["aria_log_dir_path"]}
	if v["log_bin_basename"] != "" {
		all = append(all, filepath.Dir(v["log_bin_basename"]))
	}
	return all
}

// About says what it is.
func (in *instance) About() writer.About { return in.about }

// Check asks whether we are let in and may do what is needed.
func (in *instance) Check(ctx context.Context) error {
	c, err := in.of.connect(ctx, in.at)
	if err != nil {
		return err
	}
	defer c.close()
	_, err = c.way(ctx)
	if err == nil && in.at.unseen != nil {
		err = problem.Newf(problem.WriterRights, "", "its files cannot be seen from the host: %w", in.at.unseen)
	}
	if err == nil && len(in.about.Paths) == 0 {
		err = problem.Newf(problem.WriterRights, "", "where its files are cannot be seen: we are not root")
	}
	return failure(ctx, err)
}

// way is what brings this server to rest, if we may do that.
func (c conn) way(ctx context.Context) (way, error) {
	var version, user string
	if err := c.QueryRowContext(ctx, "SELECT VERSION(), CURRENT_USER()").Scan(&version, &user); err != nil {
		return way{}, err
	}
	w, err := wayOf(version)
	if err != nil {
		return way{}, err
	}
	rows, err := c.QueryContext(ctx, "SHOW GRANTS")
	if err != nil {
		return way{}, err
	}
	defer rows.Close()
	var grants []string
	for rows.Next() {
		var g string
		if err := rows.Scan(&g); err != nil {
			return way{}, err
		}
		grants = append(grants, g)
	}
	if right := w.lacks(grants); right != "" && rows.Err() == nil {
		return way{}, problem.Newf(problem.WriterRights, "", "the user %s lacks the right %s", user, right)
	}
	return w, rows.Err()
}
