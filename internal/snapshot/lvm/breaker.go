package lvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
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

// Between two tries to undo something there is more and more time.
const (
	again    = 10 * time.Second
	atLatest = 10 * time.Minute
)

// later goes on with what could not be undone: when the command that hangs has ended, or
// after a while, for another one may have had the volume group for too long. Who asked
// for it may have gone on by then, and nobody else takes for a leftover what a process
// has made that lives. trying says that it is under way.
func (s *set) later(trying *atomic.Bool, err error, undo func(context.Context) error) {
	if !trying.CompareAndSwap(false, true) {
		return
	}
	go func() {
		ctx := context.Background()
		for pause := s.console.again; err != nil; err = undo(ctx) {
			if problem.Is(err, problem.LVMStuck) {
				_ = s.console.stuck.wait(ctx)
				continue
			}
			time.Sleep(pause)
			pause = min(2*pause, atLatest)
		}
		trying.Store(false)
	}()
}

// Tell has a log be told when a command hangs, and when it has ended.
func (p *Provider) Tell(log *slog.Logger) {
	for _, c := range []*console{p.console, p.console.aside} {
		c.stuck.mu.Lock()
		c.stuck.log = log
		c.stuck.mu.Unlock()
	}
}
