// Package sqlite brings SQLite databases to rest. It knows how to find them
// below paths, by what the files begin with, without asking for each file where
// the file system has a list, and SQLite's locks.
//
// A database has no server: who writes to it takes locks of its file. At rest
// we hold the one that a writer needs (BEGIN IMMEDIATE). So nobody is in the
// middle of a transaction, no hot journal lies beside the file, and reads go on;
// who wants to write finds the database locked, and waits as long as he is made
// to. Nothing is written by us, but that a write-ahead log is copied into the
// database before, as its own programs do all the time.
//
// The locks are a helper process's (package aide): they end when the window is
// over also if we are stopped, and with the process if that is killed.
package sqlite

import "time"

// Options are the settings. The zero value works.
type Options struct {
	// Wait is how long a lock is waited for that somebody holds; 2 s. It is
	// short, because programs wait for each other's locks for some seconds at
	// most, and the other databases of the capture rest meanwhile.
	Wait time.Duration
}

func (o Options) wait() time.Duration {
	if o.Wait == 0 {
		return 2 * time.Second
	}
	return o.Wait
}

const (
	name    = "sqlite"
	program = "stillpoint-sqlite" // the helper process
)

// most is how many databases are brought to rest at once: each takes up to
// three descriptors of one process.
const most = 1000
