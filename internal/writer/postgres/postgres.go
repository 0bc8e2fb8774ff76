// Package postgres is the writer of PostgreSQL, from version 11 on. It knows how
// its servers are found, how one is let in, and what makes a copy of a cluster
// one that can be restored.
//
// # How it comes to rest
//
// It does not: a cluster recovers from any image of one instant, as after a
// power cut, to exactly what was committed then. Where all its directories show
// one instant, Prepare only makes a checkpoint, so that the recovery is short,
// and nothing is held. Freeze and Thaw look whether it is the same server still.
//
// Where they do not, the session is a backup as PostgreSQL's manual has it
// ("Making a Base Backup Using the Low Level API"): pg_backup_start in Prepare,
// pg_backup_stop in Thaw, on one connection. What a restore needs beside the
// copies are the notes: backup_label, tablespace_map, all WAL from start to
// stop, and of a standby pg_control.
//
// # What ends it when we die
//
// Nobody waits for a session. A backup is aborted by the server when its
// connection closes. The replication slot that keeps WAL from being removed
// meanwhile is a temporary one and goes with the connection, which the server
// itself closes when we say nothing for long, so that a process of ours that is
// stopped fills no disk.
//
// # What is not covered
//
// Configuration outside the data directory (/etc/postgresql) is none of the
// paths of an instance. Servers that listen on ports alone are found by
// Options.DSN.
package postgres

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/writer"
)

// Options are settings. The zero value is good for servers that are found by
// themselves and let in the user they run as.
type Options struct {
	// Directories are where sockets are looked for, beside those of running
	// servers and the usual ones.
	Directories []string

	// User and Password are what to connect with to servers that are found,
	// instead of as the user whom the server runs as.
	User, Password string

	// Database is what to connect to. All will do; postgres by default.
	Database string

	// DSN is of one more server on this host, in any form that libpq knows.
	DSN string
}

// New makes the writer.
func New(o Options) writer.Writer {
	if o.Database == "" {
		o.Database = "postgres"
	}
	return &postgres{o}
}

type postgres struct{ Options }

const name = "postgresql"

func (*postgres) Name() string { return name }

// asking is how long Discover waits for a server to say what it is.
const asking = 3 * time.Second

// Discover finds servers by their sockets. One that does not say its version,
// or does not let us in, has that of its data directory.
func (w *postgres) Discover(ctx context.Context, _ writer.Scope) ([]writer.Instance, error) {
	found, err := w.servers()
	if w.DSN != "" {
		s, derr := byDSN(w.DSN)
		if derr != nil {
			return nil, derr
		}
		found = named(found, s)
	}
	instances := make([]*instance, len(found))
	var wait sync.WaitGroup
	for i, s := range found {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, asking)
			defer cancel()
			instances[i] = w.instance(ctx, s)
		})
	}
	wait.Wait()
	instances = slices.DeleteFunc(instances, func(in *instance) bool { return in == nil })
	slices.SortFunc(instances, func(a, b *instance) int { return strings.Compare(a.about.ID, b.about.ID) })
	all := make([]writer.Instance, len(instances))
	for i, in := range instances {
		all[i] = in
	}
	return all, err
}

// named puts a server that was named among those that were found. If it is one
// of them, it is connected to as it was named.
func named(found []server, s server) []server {
	for i, f := range found {
		if f.id() == s.id() {
			found[i].dsn = s.dsn
			return found
		}
	}
	return append(found, s)
}
