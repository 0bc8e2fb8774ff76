package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	logs     = 8    // files that records are written to in turn, all held open
	accounts = 100  // in the database
	balance  = 1000 // of each at the beginning
)

// writers are the programs that keep the volume busy.
type writers struct {
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	records atomic.Int64 // synced to disk
	moves   atomic.Int64
	pays    atomic.Int64

	mu  sync.Mutex
	err error
}

func startWriters(ctx context.Context, dir string) (*writers, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &writers{cancel: cancel}
	for _, sub := range []string{"logs", "spool", "db"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			cancel()
			return nil, err
		}
	}
	if err := bank(ctx, filepath.Join(dir, "db", "bank.sqlite")); err != nil {
		cancel()
		return nil, err
	}
	w.start(func() error { return w.record(ctx, filepath.Join(dir, "logs")) })
	w.start(func() error { return w.move(ctx, filepath.Join(dir, "spool")) })
	w.start(func() error { return w.pay(ctx, filepath.Join(dir, "db", "bank.sqlite")) })
	return w, nil
}

func (w *writers) start(f func() error) {
	w.wg.Go(func() {
		if err := f(); err != nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.err = errors.Join(w.err, err)
		}
	})
}

func (w *writers) stop() error {
	w.cancel()
	w.wg.Wait()
	return w.err
}

func (w *writers) describe() string {
	return fmt.Sprintf("%d records synced in %d files held open, %d files renamed and deleted, %d SQLite transactions",
		w.records.Load(), logs, w.moves.Load(), w.pays.Load())
}

// record appends numbered records to files that stay open, one after the
// other, each synced before the next. Whatever moment a backup shows, the
// records in it are 1, 2, 3 … to the last one, without a gap.
func (w *writers) record(ctx context.Context, dir string) error {
	var files [logs]*os.File
	for i := range files {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("log.%d", i)), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	for n := int64(1); ctx.Err() == nil; n++ {
		f := files[n%logs]
		if _, err := fmt.Fprintf(f, "%d\n", n); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		w.records.Store(n)
	}
	return nil
}

// move makes the file NNNN, synced, and then deletes the one before it: at any
// moment there are one or two, neighbours, and each is whole.
func (w *writers) move(ctx context.Context, dir string) error {
	for n := 1; ctx.Err() == nil; n++ {
		tmp := filepath.Join(dir, "incoming")
		if err := os.WriteFile(tmp, []byte(strings.Repeat(strconv.Itoa(n)+"\n", 1000)), 0o644); err != nil {
			return err
		}
		if err := syncFile(tmp); err != nil {
			return err
		}
		if err := os.Rename(tmp, filepath.Join(dir, strconv.Itoa(n))); err != nil {
			return err
		}
		if n > 1 {
			if err := os.Remove(filepath.Join(dir, strconv.Itoa(n-1))); err != nil {
				return err
			}
		}
		w.moves.Store(int64(n))
	}
	return nil
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// bank makes a database of accounts.
func bank(ctx context.Context, db string) error {
	_, err := sqlite(ctx, db, fmt.Sprintf(`PRAGMA journal_mode=WAL;
CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE payment (id INTEGER PRIMARY KEY AUTOINCREMENT, amount INTEGER NOT NULL);
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i < %d) INSERT INTO account SELECT i, %d FROM n;`, accounts-1, balance))
	return err
}

// pay moves money between accounts, in transactions: the sum never changes.
func (w *writers) pay(ctx context.Context, db string) error {
	for n := 1; ctx.Err() == nil; n++ {
		_, err := sqlite(context.WithoutCancel(ctx), db, fmt.Sprintf(`BEGIN IMMEDIATE;
UPDATE account SET balance = balance - 1 WHERE id = %d;
UPDATE account SET balance = balance + 1 WHERE id = %d;
INSERT INTO payment (amount) VALUES (1);
COMMIT;`, n%accounts, (n*7+1)%accounts))
		if err != nil {
			return err
		}
		w.pays.Store(int64(n))
	}
	return nil
}

func sqlite(ctx context.Context, db, sql string) (string, error) {
	c := exec.CommandContext(ctx, "sqlite3", "-bail", "-cmd", ".timeout 5000", db, sql)
	out, err := c.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("sqlite3: %w: %s", err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
