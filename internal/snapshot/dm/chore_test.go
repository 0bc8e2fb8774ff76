package dm

import (
	"context"
	"errors"
	"testing"
	"time"

	"stillpoint/internal/sys/dm"
)

// Who waits for what hangs goes on when its context ends, or its time, and may wait again.
func TestChore(t *testing.T) {
	goOn, failed := make(chan bool), errors.New("failed")
	c := begin(func() error {
		<-goOn
		return failed
	})
	looked := false
	if err := c.wait(t.Context(), time.Now().Add(seldom+seldom/2), func() { looked = true }); !errors.Is(err, dm.ErrSlow) || !looked {
		t.Errorf("after its time: %v, looked: %v", err, looked)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.wait(over, time.Now().Add(time.Hour), func() {}); !errors.Is(err, dm.ErrSlow) || !errors.Is(err, context.Canceled) {
		t.Errorf("without a context: %v", err)
	}
	if c.hasEnded() {
		t.Error("it has ended")
	}
	close(goOn)
	if err := c.wait(t.Context(), time.Now().Add(time.Hour), func() {}); err != failed {
		t.Errorf("at its end: %v", err)
	}
	if err := c.wait(over, time.Time{}, func() {}); err != failed {
		t.Errorf("after its end: %v", err)
	}
}

func TestTurn(t *testing.T) {
	turn := newTurn()
	if err := turn.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := turn.take(over); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("taken twice: %v", err)
	}
	turn.give()
	if err := turn.take(t.Context()); err != nil {
		t.Error(err)
	}
}
