package lvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/tool"
)

// A breaker refuses commands while one hangs that was told to end.
type breaker struct {
	mu    sync.Mutex
	stuck error
	ended <-chan struct{} // is closed when that one has ended after all
	log   *slog.Logger    // is told; may be nil
}

// trip is for a command that does not end.
func (b *breaker) trip(name string, err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stuck = problem.New(problem.LVMStuck, name, fmt.Errorf("a command does not end, so no other is run until it has: %w", err))
	b.ended = nil
	if e := (*tool.Error)(nil); errors.As(err, &e) {
		b.ended = e.Ended
	}
	if b.log != nil {
		b.log.Error("a command of LVM does not end, no other is run", "code", problem.LVMStuck, "reason", problem.Text(b.stuck))
		if b.ended != nil {
			go tellEnd(b.log, name, time.Now(), b.ended)
		}
	}
	return b.stuck
}

func tellEnd(log *slog.Logger, name string, since time.Time, ended <-chan struct{}) {
	<-ended
	log.Info("the command of LVM has ended, LVM is asked again", "command", name, "after", time.Since(since).Round(time.Second))
}

// refuses is nil while no command hangs.
func (b *breaker) refuses() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.ended:
		b.stuck, b.ended = nil, nil
	default:
	}
	return b.stuck
}

// wait waits until no command hangs.
func (b *breaker) wait(ctx context.Context) error {
	b.mu.Lock()
	stuck, ended := b.stuck, b.ended
	b.mu.Unlock()
	if stuck == nil {
		return nil
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// later undoes what a command that hung has kept from being undone, when that has
// ended. Who asked for it may have gone on by then, and nobody else takes for a
// leftover what a process has made that lives.
func (s *set) later(err error, undo func(context.Context) error) {
	if !problem.Is(err, problem.LVMStuck) {
		return
	}
	go func() {
		ctx := context.Background()
		if s.console.stuck.wait(ctx) == nil {
			_ = undo(ctx)
		}
	}()
}

// Tell has a log be told when a command hangs, and when it has ended.
func (p *Provider) Tell(log *slog.Logger) {
	b := &p.console.stuck
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = log
}
