package main

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"stillpoint/internal/scratch"
	"stillpoint/internal/writer/servertest"
	"stillpoint/internal/writer/writertest/bank"
)

// clients is how many a bank has.
const clients = 4

// A branch is a real server whose data lies on scratch volumes, with a bank
// that works on it until the test ends.
type branch struct {
	*bank.Bank
	app  string   // how a report begins to name it
	dirs []string // of its volumes

	// restored starts a server on what was restored below a directory, which
	// is sound when it has been looked at, and returns the bank's database.
	restored func(t *testing.T, out string) *sql.DB

	// nothing of ours is left at the server, no lock and no backup under way.
	free func(t *testing.T)
}

// postgreSQL is one with its data on the first volume, and its WAL on the last.
func postgreSQL(t *testing.T, dirs ...string) *branch {
	c := servertest.NewPostgreSQL(t)
	c.Data = filepath.Join(dirs[0], "pg", "data")
	wal := filepath.Join(dirs[len(dirs)-1], "pg", "wal")
	for _, dir := range []string{filepath.Dir(c.Data), filepath.Dir(wal)} {
		need(t, os.MkdirAll(dir, 0o755))
		c.Reach(dir)
	}
	c.Create()
	if len(dirs) > 1 {
		c.MoveWAL(wal)
	}
	c.Serve("-c", "fsync=on")
	c.Must("CREATE EXTENSION amcheck")
	need(t, bank.Found(t.Context(), c.DB, ""))
	return opened(t, &branch{
		Bank: bank.Open(c.DB, clients), app: "postgresql:" + c.Dir, dirs: dirs,
		restored: func(t *testing.T, out string) *sql.DB {
			r := servertest.NewPostgreSQL(t)
			r.Data = filepath.Join(out, c.Data)
			r.Reach(r.Data)
			// Its number may be that of a process that runs here.
			need(t, os.Remove(r.Data+"/postmaster.pid"))
			if len(dirs) > 1 {
				r.Reach(filepath.Join(out, wal))
				need(t, os.Remove(r.Data+"/pg_wal"))
				need(t, os.Symlink(filepath.Join(out, wal), r.Data+"/pg_wal"))
			}
			r.Serve()
			r.Run("pg_amcheck", "-h", r.Dir, "--all", "--install-missing", "--heapallindexed")
			return r.DB
		},
		free: func(t *testing.T) {
			until(t, "there are no sessions and slots of ours", func() bool {
				var n int
				need(t, c.DB.QueryRow(`SELECT (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stillpoint')
					+ (SELECT count(*) FROM pg_replication_slots)`).Scan(&n))
				return n == 0
			})
		},
	})
}

// mariaDB is one with its data on a volume.
func mariaDB(t *testing.T, dir string) *branch {
	s := servertest.NewMariaDB(t, "--innodb-flush-log-at-trx-commit=1")
	s.Data = filepath.Join(dir, "my", "data")
	need(t, os.MkdirAll(filepath.Dir(s.Data), 0o755))
	s.Reach(filepath.Dir(s.Data))
	s.Create()
	s.Serve()
	s.Must("CREATE DATABASE IF NOT EXISTS d")
	db := s.Open("root", "d")
	need(t, bank.Found(t.Context(), db, "ENGINE=InnoDB"))
	return opened(t, &branch{
		Bank: bank.Open(db, clients), app: "mariadb:" + s.Socket(), dirs: []string{dir},
		restored: func(t *testing.T, out string) *sql.DB {
			r := servertest.NewMariaDB(t)
			r.Data = filepath.Join(out, s.Data)
			r.Reach(r.Data)
			r.Serve()
			r.Sound()
			return r.Open("root", "d")
		},
		free: func(t *testing.T) {
			k, err := s.DB.Conn(t.Context())
			need(t, err)
			defer k.Close()
			for _, q := range []string{"SET SESSION lock_wait_timeout = 10", "BACKUP STAGE START", "BACKUP STAGE BLOCK_COMMIT", "BACKUP STAGE END"} {
				if _, err := k.ExecContext(t.Context(), q); err != nil {
					t.Fatalf("%s: %v", q, err)
				}
			}
			until(t, "there are no sessions of ours", func() bool {
				var n int
				need(t, s.DB.QueryRow("SELECT count(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'BACKUP STAGE%'").Scan(&n))
				return n == 0
			})
		},
	})
}

// opened closes the bank with the test, in which no transfer may fail.
func opened(t *testing.T, b *branch) *branch {
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("%s: %v", b.app, err)
		}
	})
	b.more(t, 100)
	return b
}

// more waits until so many more transfers are acknowledged.
func (b *branch) more(t *testing.T, n int) {
	t.Helper()
	made := b.Made()
	until(t, "transfers are made", func() bool {
		need(t, b.Err())
		return b.Made() >= made+n
	})
}

// A pace is how fast this machine is without us: it writes and syncs again and
// again beside the images of the volumes, and notes how long that takes at
// most. A server's client waits for the same disk and the same processors.
type pace struct {
	slowest chan time.Duration // since it was asked before
}

// flushes is how many times a commit of a server may wait for the disk as long as
// one write of a pace does: of its log and of a binary log, of pages that have to
// make room, and of the journal of the file system, on the loop device and below.
const flushes = 6

func newPace(t *testing.T) *pace {
	f, err := os.CreateTemp(t.TempDir(), "")
	need(t, err)
	p := &pace{make(chan time.Duration)}
	stop, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-ended; f.Close() })
	go func() {
		defer close(ended)
		var slowest time.Duration
		for {
			began := time.Now()
			_, err := f.WriteAt(make([]byte, 4096), 0)
			if err == nil {
				err = f.Sync()
			}
			if err != nil {
				t.Error(err)
				return
			}
			slowest = max(slowest, time.Since(began))
			select {
			case <-stop:
				return
			case p.slowest <- slowest:
				slowest = 0
			case <-time.After(5 * time.Millisecond):
				slowest = max(slowest, time.Since(began)-5*time.Millisecond)
			}
		}
	}()
	return p
}

// roomForServers is for the files that servers have mapped, which are copied.
// The cache file lies on the program's own volume, for all others stand on the
// one with this machine's root.
const roomForServers = "STILLPOINT_CACHE_MAX=300M"

// volumesFor are scratch volumes of these kinds.
func volumesFor(t *testing.T, kinds ...string) (dirs []string) {
	for _, fs := range kinds {
		dirs = append(dirs, scratch.New(t, fs, 512*scratch.MiB).Dir)
	}
	return dirs
}

func need(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in a minute", what)
		}
	}
}
