package lvm

import (
	"context"
	"fmt"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/tool"
)

// A room that could not be removed is tried again when the command that hangs has ended,
// or after a while.
func TestRoomWaits(t *testing.T) {
	ended := make(chan struct{})
	c := consoleOf(func(context.Context, string, ...string) ([]byte, error) {
		return nil, &tool.Error{Command: []string{"lvs"}, Code: -1, Ended: ended, Err: fmt.Errorf("%w; %w as process 7", context.DeadlineExceeded, tool.ErrStuck)}
	})
	c.again = time.Millisecond
	r := &room{console: c}
	r.Wait(0)
	if _, err := c.list(t.Context()); !problem.Is(err, problem.LVMStuck) {
		t.Fatal(err)
	}
	waited := make(chan struct{})
	go func() { r.Wait(0); close(waited) }()
	select {
	case <-waited:
		t.Error("it does not wait for the command that hangs")
	case <-time.After(50 * time.Millisecond):
	}
	close(ended)
	<-waited
}
