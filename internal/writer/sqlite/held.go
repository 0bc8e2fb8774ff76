package sqlite

import (
	"context"
	"database/sql"
	"net/url"
	"os"
	"sync"
	"time"

	"stillpoint/internal/problem"
)

// A held database is open, and perhaps locked.
type held struct {
	id   string
	as   owner
	db   *sql.DB
	conn *sql.Conn

	mu     sync.Mutex // one statement at a time
	locked bool
	over   bool        // Release was called: nothing is locked any more
	window *time.Timer // unlocks it
	late   bool        // and has done so
}

// open opens a database, and empties its write-ahead log as far as others let
// it.
func (h *held) open(path string) (err error) {
	// No time to wait for locks in there: who waits here can be called back.
	h.db, err = sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=rw&_pragma=busy_timeout(0)")
	if err != nil {
		return err
	}
	ctx := context.Background()
	if h.conn, err = h.db.Conn(ctx); err == nil {
		var mode string
		err = h.conn.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode)
		if err == nil && mode == "wal" {
			_, err = h.conn.ExecContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)")
		}
	}
	if busy(err) || primary(err) == codeFull {
		// Somebody is at work, as is to be expected, and rest waits; or the
		// volume is full, and the log stays as long as it is.
		return nil
	}
	return err
}

// again is how soon a lock is tried again.
const again = 3 * time.Millisecond

// rest locks the database as one who wants to write.
func (h *held) rest(r Resting) error {
	began := time.Now()
	// The window began when we were asked. A clock that was set meanwhile makes
	// it no longer.
	left := r.Window - max(time.Since(r.Asked), 0)
	for {
		err := h.try(left - time.Since(began))
		if err == nil || !busy(err) {
			return understood(h.id, err)
		}
		if time.Since(began) >= r.Wait {
			return problem.Newf(problem.WriterBusy, h.id, "somebody has locked it for more than %s", r.Wait.Round(time.Millisecond))
		}
		time.Sleep(again)
	}
}

func (h *held) try(left time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.over:
		return problem.Newf(problem.WriterFailed, h.id, "the session was ended while it came to rest")
	case left <= 0:
		return problem.Newf(problem.WindowClosed, h.id, "the window was over before it came to rest")
	}
	if err := h.say("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	h.locked = true
	h.window = time.AfterFunc(left, h.expire)
	return nil
}

// expire unlocks the database when the window is over.
func (h *held) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.locked {
		return
	}
	h.late = true
	if err := h.unlock(); err != nil {
		os.Exit(1) // all locks end with the process
	}
}

// unlock touches no file but by its locks, as nothing was changed.
func (h *held) unlock() error {
	h.locked = false
	return understood(h.id, h.say("ROLLBACK"))
}

func (h *held) say(statement string) error {
	return h.as.do(func() error {
		_, err := h.conn.ExecContext(context.Background(), statement)
		return err
	})
}

// release unlocks the database, and says whether it was locked until now.
func (h *held) release() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	if h.window != nil {
		h.window.Stop()
	}
	switch {
	case h.late:
		return problem.Newf(problem.WindowClosed, h.id, "it was unlocked when the window was over")
	case h.locked:
		return h.unlock()
	}
	return nil
}

func (h *held) close() {
	_ = h.as.do(func() error {
		if h.conn != nil {
			_ = h.conn.Close()
		}
		if h.db != nil {
			_ = h.db.Close()
		}
		return nil
	})
}
