package dm

import (
	"context"
	"fmt"
	"time"

	"stillpoint/internal/sys/dm"
)

// A chore is something that may wait for a disk in a way that nothing ends. It is done in
// a goroutine of its own, which has no lock; who has begun it waits for a while, and may wait
// for it again.
type chore struct {
	done chan struct{}
	err  error
}

func begin(do func() error) *chore {
	c := &chore{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.err = do()
	}()
	return c
}

// hasEnded tells whether it is done.
func (c *chore) hasEnded() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// wait waits for it until some time, and does something several times a second meanwhile.
func (c *chore) wait(ctx context.Context, until time.Time, meanwhile func()) error {
	for !c.hasEnded() {
		select {
		case <-c.done:
		case <-ctx.Done():
			if !c.hasEnded() {
				return fmt.Errorf("%w: %w", dm.ErrSlow, ctx.Err())
			}
		case <-time.After(seldom):
			meanwhile()
			if time.Now().After(until) {
				return dm.ErrSlow
			}
		}
	}
	return c.err
}

// A turn is a mutex that is waited for only for as long as a context lasts.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) give() { <-t }
