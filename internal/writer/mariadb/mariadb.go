// Package mariadb is the writer of MariaDB, from version 10.4 on, and of MySQL,
// from version 8 on. It knows how their servers are found, how one is let in,
// and which statements bring them to rest.
//
// # How it comes to rest
//
// MariaDB has stages for backups (BACKUP STAGE, in its manual): START,
// for which nobody waits, in Prepare; FLUSH, BLOCK_DDL and BLOCK_COMMIT in
// Freeze; END in Thaw, on one connection. Then tables that know no transactions are written
// out and closed, and nobody can commit; queries go on. MySQL has LOCK INSTANCE
// FOR BACKUP, and FLUSH TABLES WITH READ LOCK for the rest.
//
// InnoDB itself goes on writing its files meanwhile. A copy of one instant
// recovers as after a power cut; copies of several instants would not, and a
// server with files in several places of which that is asked is refused.
//
// # Who waits for whom
//
// While we wait for a lock, all who want to write wait behind us. So no
// statement of ours waits for longer than Options.LockWait: when LOCK TABLES or
// a long change of a table without transactions is in the way, we give up, and the statement is ended by a
// second connection. FLUSH TABLES would wait for queries, too, and others for
// it even after it was ended: it is not begun while a query runs for long.
//
// # What ends it when we die
//
// The server lets go what a connection held when that closes. When our process
// is stopped, the server ends the connection by wait_timeout, which is set to
// what is left of the window.
package mariadb

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/writer"
)

// Options are settings. The zero value is good for servers that are found by
// themselves and let in root, or the user they run as, by their socket.
type Options struct {
	// Sockets are paths beside those of running servers and the usual ones.
	Sockets []string

	// User and Password are what to connect with, instead of by unix_socket.
	User, Password string

	// LockWait is the longest that we wait for a lock, and so the longest that
	// others wait behind us without any rest; 5 s by default.
	LockWait time.Duration
}

// New makes the writer.
func New(o Options) writer.Writer {
	if o.LockWait == 0 {
		o.LockWait = 5 * time.Second
	}
	return &mariadb{o}
}

type mariadb struct{ Options }

const name = "mariadb"

func (*mariadb) Name() string { return name }

// asking is how long Discover waits for a server to say what it is.
const asking = 3 * time.Second

// Discover finds servers by their sockets. One that does not let us in has the
// directory it works in as its path.
func (w *mariadb) Discover(ctx context.Context, _ writer.Scope) ([]writer.Instance, error) {
	found, err := w.servers()
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
