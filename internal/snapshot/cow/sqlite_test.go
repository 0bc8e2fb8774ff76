package cow

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// SQLite databases in each way of keeping a journal. What is not synchronized
// is in the snapshot all the same.
func TestSQLite(t *testing.T) {
	underWriters(t, map[string]func() program{
		"wal": func() program { return &sqlite{pragmas: "journal_mode=WAL; PRAGMA synchronous=NORMAL"} },
		"wal-map": func() program {
			return &sqlite{pragmas: "journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA mmap_size=67108864"}
		},
		"delete":   func() program { return &sqlite{pragmas: "journal_mode=DELETE; PRAGMA synchronous=FULL"} },
		"truncate": func() program { return &sqlite{pragmas: "journal_mode=TRUNCATE; PRAGMA synchronous=OFF"} },
		"persist":  func() program { return &sqlite{pragmas: "journal_mode=PERSIST; PRAGMA synchronous=OFF"} },
	})
}

const (
	accounts = 1000
	balance  = 100 // of each at the beginning
	logged   = 300 // rows of the log that a client keeps
)

// A sqlite is a database with clients that move money. The sum stays; each
// client numbers its transactions.
type sqlite struct {
	pragmas string
	clients []*sqliteClient
}

type sqliteClient struct {
	begun, done atomic.Int64 // transactions
	from, to    int64
	failure     atomic.Pointer[error]
}

func (d *sqlite) start(r *rig, dir string) {
	path := filepath.Join(dir, "db")
	create := "PRAGMA " + d.pragmas + `;
		CREATE TABLE account(id INTEGER PRIMARY KEY, balance INT);
		CREATE TABLE log(client INT, n INT, amount INT, filler BLOB, PRIMARY KEY(client, n)) WITHOUT ROWID;
		CREATE INDEX by_amount ON log(amount, client);
		WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM i WHERE n < ` + itoa(accounts) + `)
		INSERT INTO account SELECT n, ` + itoa(balance) + ` FROM i;`
	if out, err := exec.Command("sqlite3", "-bail", path, create).CombinedOutput(); err != nil {
		r.Fatalf("%v: %s", err, out)
	}
	for i := range 2 {
		c := &sqliteClient{}
		d.clients = append(d.clients, c)
		c.start(r, path, d.pragmas, i)
	}
	waitFor(r.T, func() bool {
		return d.clients[0].done.Load() > 20 && d.clients[1].done.Load() > 20 || d.failed() != nil
	})
	r.must(d.failed())
}

func (d *sqlite) failed() error {
	for _, c := range d.clients {
		if err := c.failure.Load(); err != nil {
			return *err
		}
	}
	return nil
}

// start starts a process that makes one transaction after the other and tells
// of each when it is committed.
func (c *sqliteClient) start(r *rig, path, pragmas string, id int) {
	cmd := exec.Command("sqlite3", "-bail", "-batch", path)
	in, err := cmd.StdinPipe()
	r.must(err)
	out, err := cmd.StdoutPipe()
	r.must(err)
	cmd.Stderr = os.Stderr
	r.must(cmd.Start())
	var stop atomic.Bool
	var ended sync.WaitGroup
	ended.Go(func() {
		lines := bufio.NewScanner(out)
		_, _ = fmt.Fprintf(in, ".timeout 30000\nPRAGMA %s;\n.print ready\n", pragmas)
		for lines.Scan() && lines.Text() != "ready" {
		}
		for n := int64(1); !stop.Load(); n++ {
			c.begun.Store(n)
			_, _ = io.WriteString(in, transaction(id, n))
			for lines.Scan() && strings.Contains(lines.Text(), "|") { // of the checkpoint
			}
			if lines.Text() != fmt.Sprint("done ", n) {
				if !stop.Load() {
					err := fmt.Errorf("transaction %d: %q %w", n, lines.Text(), errors.Join(lines.Err()))
					c.failure.Store(&err)
				}
				return
			}
			c.done.Store(n)
			time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
		}
	})
	r.Cleanup(func() {
		stop.Store(true)
		_ = cmd.Process.Kill()
		ended.Wait()
		_ = cmd.Wait()
	})
}

func transaction(client int, n int64) string {
	amount := rand.IntN(50)
	var s strings.Builder
	if n%100 == 0 { // or the log grows beyond what may be hot
		s.WriteString("PRAGMA wal_checkpoint(TRUNCATE);\n")
	}
	fmt.Fprintf(&s, "BEGIN IMMEDIATE; INSERT INTO log VALUES(%d, %d, %d, randomblob(%d));\n", client, n, amount, 50+rand.IntN(500))
	for range 4 {
		fmt.Fprintf(&s, "UPDATE account SET balance = balance - %d WHERE id = %d;\n", amount, 1+rand.IntN(accounts))
		fmt.Fprintf(&s, "UPDATE account SET balance = balance + %d WHERE id = %d;\n", amount, 1+rand.IntN(accounts))
	}
	fmt.Fprintf(&s, "DELETE FROM log WHERE client = %d AND n <= %d;\nCOMMIT;\n.print done %d\n", client, n-logged, n)
	return s.String()
}

func (d *sqlite) before(*rig) {
	for _, c := range d.clients {
		c.from = c.done.Load()
	}
}

func (d *sqlite) after(r *rig) {
	for _, c := range d.clients {
		c.to = c.begun.Load()
	}
	r.must(d.failed())
}

func (d *sqlite) check(ctx context.Context, dir string) error {
	ask := func(sql string) (string, error) {
		out, err := exec.CommandContext(ctx, "sqlite3", "-bail", "-batch", filepath.Join(dir, "db"), sql).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	got, err := ask("PRAGMA integrity_check; PRAGMA foreign_key_check; SELECT sum(balance), count(*) FROM account;")
	if want := fmt.Sprintf("ok\n%d|%d", accounts*balance, accounts); err != nil || got != want {
		return fmt.Errorf("says %q, want %q: %w", got, want, err)
	}
	for i, c := range d.clients {
		got, err := ask(fmt.Sprintf("SELECT max(n), max(n)-min(n)+1-count(*), count(*) FROM log WHERE client = %d", i))
		var last, missing, rows int64
		if _, serr := fmt.Sscanf(got, "%d|%d|%d", &last, &missing, &rows); err != nil || serr != nil {
			return fmt.Errorf("client %d: %q: %w", i, got, errors.Join(err, serr))
		}
		if last < c.from || last > c.to || missing != 0 || rows != min(last, logged) {
			return fmt.Errorf("client %d: %d transactions, and there were between %d and %d; %d rows, %d missing", i, last, c.from, c.to, rows, missing)
		}
	}
	return nil
}
