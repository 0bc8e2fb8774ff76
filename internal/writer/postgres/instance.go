package postgres

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// An instance is a running server.
type instance struct {
	of    *postgres
	at    server
	about writer.About
}

// instance asks a server what it is. It is nil when nobody listens there.
func (w *postgres) instance(ctx context.Context, s server) *instance {
	in := &instance{of: w, at: s, about: writer.About{ID: s.id(), Writer: name}}
	c, err := w.connect(ctx, s)
	if err != nil {
		if s.data == "" && s.dsn == "" && !s.contained && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)) {
			return nil // what is left of one that ran
		}
		if b, err := os.ReadFile(filepath.Join(s.data, "PG_VERSION")); err == nil && s.data != "" {
			in.about.Version = strings.TrimSpace(string(b))
		}
	} else {
		defer c.close()
		if row, err := c.row(ctx, "SELECT current_setting('server_version')"); err == nil {
			in.about.Version = row[0]
		}
		if s.data == "" && !s.contained {
			in.at.data = dataOf(ctx, c)
		}
	}
	if in.at.data != "" {
		var err error
		if in.about.Paths, err = in.at.paths(); err != nil && s.elsewhere() {
			in.at.unseen = err
		}
	}
	return in
}

// dataOf asks for the data directory, and believes it when the server that uses
// the one of this name, here, was started when this one was: the third line of
// postmaster.pid.
func dataOf(ctx context.Context, c conn) string {
	row, err := c.row(ctx, "SELECT current_setting('data_directory'), floor(extract(epoch FROM pg_postmaster_start_time()))::bigint")
	if err != nil {
		return ""
	}
	dir, err := filepath.EvalSymlinks(row[0])
	if err != nil {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return ""
	}
	started, _ := strconv.ParseInt(row[1], 10, 64)
	lines := strings.Split(string(b), "\n")
	if len(lines) < 3 {
		return ""
	}
	locked, _ := strconv.ParseInt(strings.TrimSpace(lines[2]), 10, 64)
	if d := started - locked; d < -5 || d > 5 {
		return ""
	}
	return dir
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
	s, err := c.state(ctx)
	if err == nil {
		err = s.checkpointing()
	}
	if err == nil {
		err = s.backing()
	}
	if err == nil && in.at.unseen != nil {
		err = problem.Newf(problem.WriterRights, "", "its files cannot be seen from the host: %w", in.at.unseen)
	}
	if err == nil && in.at.data == "" {
		err = problem.Newf(problem.WriterRights, "", "where the data directory is cannot be seen: the user %s needs the right pg_read_all_settings", s.user)
	}
	return failure(ctx, err)
}

// A state is what a server says about itself and about us.
type state struct {
	version    int    // 150004
	started    string // when the postmaster started
	segment    int64  // bytes of a WAL file
	standby    bool
	checkpoint bool // we may make one
	backup     bool // we may make one
	slot       bool // we may keep WAL from being removed
	user       string
}

// oldest is the first version that is supported: it gives the size of WAL files
// in bytes.
const oldest = 110000

func (c conn) state(ctx context.Context) (state, error) {
	row, err := c.row(ctx, `SELECT current_setting('server_version_num'), pg_postmaster_start_time(),
		pg_size_bytes(current_setting('wal_segment_size')), pg_is_in_recovery(),
		rolsuper OR EXISTS (SELECT FROM pg_roles g WHERE g.rolname = 'pg_checkpoint' AND pg_has_role(g.oid, 'USAGE')),
		(SELECT bool_and(has_function_privilege(p.oid, 'EXECUTE')) FROM pg_proc p WHERE pronamespace = 'pg_catalog'::regnamespace
			AND (proname, pronargs) IN (('pg_backup_start', 2), ('pg_backup_stop', 1), ('pg_start_backup', 3), ('pg_stop_backup', 2))),
		(rolsuper OR rolreplication) AND current_setting('wal_level') <> 'minimal', rolname
		FROM pg_roles r WHERE r.rolname = current_user`)
	if err != nil {
		return state{}, err
	}
	s := state{started: row[1], standby: row[3] == "t", checkpoint: row[4] == "t", backup: row[5] == "t", slot: row[6] == "t", user: row[7]}
	s.version, _ = strconv.Atoi(row[0])
	s.segment, _ = strconv.ParseInt(row[2], 10, 64)
	if s.version < oldest || s.segment <= 0 {
		return s, problem.Newf(problem.WriterFailed, "", "PostgreSQL %s is not supported: 11 and later are", row[0])
	}
	return s, nil
}

func (s state) checkpointing() error {
	if s.checkpoint {
		return nil
	}
	return problem.Newf(problem.WriterRights, "", "the user %s may not run CHECKPOINT: it must be a superuser, or from version 15 on have the role pg_checkpoint", s.user)
}

func (s state) backing() error {
	if s.backup {
		return nil
	}
	return problem.Newf(problem.WriterRights, "", "the user %s may not execute the functions %s and %s", s.user, s.startName(), s.stopName())
}

// The functions were renamed in version 15.
func (s state) startName() string {
	if s.version < 150000 {
		return "pg_start_backup"
	}
	return "pg_backup_start"
}

func (s state) stopName() string {
	if s.version < 150000 {
		return "pg_stop_backup"
	}
	return "pg_backup_stop"
}
