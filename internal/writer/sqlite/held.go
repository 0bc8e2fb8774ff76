package sqlite

import (
	"context"
	"database/sql"
	"os"
	"sync"
	"time"

	"stillpoint/internal/problem"
)

// A held database is open, and perhaps locked.
type held struct {
	id   string
	db   *sql.DB
	conn *sql.Conn

	mu     sync.Mutex // one statement at a time
	locked bool
	over   bool        // Release was called: nothing is locked any more
	window *time.Timer // unlocks it
	late   bool        // and has done so
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
	if _, err := h.conn.ExecContext(context.Background(), "BEGIN IMMEDIATE"); err != nil {
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
	_, err := h.conn.ExecContext(context.Background(), "ROLLBACK")
	return understood(h.id, err)
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
	if h.conn != nil {
		_ = h.conn.Close()
	}
	_ = h.db.Close()
}
