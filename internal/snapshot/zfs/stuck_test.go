package zfs

import (
	"context"
	"errors"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

// What does not come back is given up, and nothing more is begun until it does.
func TestStuck(t *testing.T) {
	var s stuck
	ctx := t.Context()
	back := make(chan struct{})
	err := s.do(ctx, time.Millisecond, "sync of tank", func() error { <-back; return nil })
	if problem.CodeOf(err) != problem.ZFSStuck {
		t.Fatalf("%v", err)
	}
	called := false
	err = s.do(ctx, time.Minute, "zpool list", func() error { called = true; return nil })
	if problem.CodeOf(err) != problem.ZFSStuck || called {
		t.Errorf("%v, called: %t", err, called)
	}
	close(back)
	for end := time.Now().Add(20 * time.Second); s.refuse() != nil && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if err := s.do(ctx, time.Minute, "zpool list", func() error { called = true; return nil }); err != nil || !called {
		t.Errorf("after it came back: %v, called: %t", err, called)
	}
}

// A call that ends in time says what it says.
func TestNotStuck(t *testing.T) {
	var s stuck
	want := errors.New("no")
	if err := s.do(t.Context(), time.Minute, "x", func() error { return want }); !errors.Is(err, want) {
		t.Error(err)
	}
	dead, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.do(dead, time.Minute, "x", func() error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// One that is nearly done when the context ends has done what it does.
	late, cancel := context.WithCancel(t.Context())
	err := s.do(late, time.Minute, "x", func() error { cancel(); time.Sleep(5 * time.Millisecond); return want })
	if !errors.Is(err, want) || s.refuse() != nil {
		t.Error(err)
	}
}
