package lvm

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/tool"
)

// A record is a log that can be read while it is written.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

// until waits for something that comes soon.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come: " + what)
		}
	}
}

// When the command that hung has ended, others are run again: the log says so, and
// what could not be undone is undone.
func TestStuckNoMore(t *testing.T) {
	ended := make(chan struct{})
	hangs := true
	c := consoleOf(func(context.Context, string, ...string) ([]byte, error) {
		if hangs {
			hangs = false
			return nil, &tool.Error{Command: []string{"lvs"}, Code: -1, Ended: ended, Err: fmt.Errorf("%w; %w as process 7", context.DeadlineExceeded, tool.ErrStuck)}
		}
		return []byte(`{"report":[{"lv":[]}]}`), nil
	})
	var log record
	(&Provider{console: c}).Tell(slog.New(slog.NewTextHandler(&log, nil)))
	_, err := c.list(t.Context())
	if !problem.Is(err, problem.LVMStuck) || !strings.Contains(log.String(), "code=lvm-stuck") {
		t.Fatalf("%v; the log has %q", err, log.String())
	}
	undone := make(chan error, 1)
	(&set{console: c}).later(new(atomic.Bool), fmt.Errorf("undo: %w", err), func(ctx context.Context) error {
		_, err := c.list(ctx)
		undone <- err
		return err
	})
	if _, err := c.list(t.Context()); !problem.Is(err, problem.LVMStuck) {
		t.Errorf("while it hangs: %v", err)
	}
	select {
	case err := <-undone:
		t.Errorf("undone while it hangs: %v", err)
	default:
	}
	close(ended)
	if err := <-undone; err != nil {
		t.Error(err)
	}
	if _, err := c.list(t.Context()); err != nil {
		t.Error(err)
	}
	until(t, "the word that it has ended", func() bool { return strings.Contains(log.String(), "LVM is asked again") })
}

// What could not be undone for another reason is tried again until it is, by one.
func TestLater(t *testing.T) {
	c := newConsole()
	c.again = time.Millisecond
	s, tries, undone := &set{console: c}, 0, make(chan struct{})
	busy := problem.Newf(problem.Busy, "some", "another command is at work")
	undo := func(context.Context) error {
		if tries++; tries < 4 {
			s.later(&s.trying, busy, func(context.Context) error { t.Error("there are two"); return nil })
			return busy
		}
		close(undone)
		return nil
	}
	s.later(&s.trying, busy, undo)
	<-undone
	until(t, "its end", func() bool { return !s.trying.Load() })
}
