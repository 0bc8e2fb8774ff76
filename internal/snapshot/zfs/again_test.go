package zfs

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// What could not be undone is tried until it is, once at a time, and not while something
// is out.
func TestLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s stuck
		var trying atomic.Bool
		var tries atomic.Int64
		undo := func(context.Context) error {
			if tries.Add(1) < 10 {
				return errors.New("not yet")
			}
			return nil
		}
		s.note("sync of tank", 1)
		for range 2 {
			s.later(&trying, undo)
		}
		time.Sleep(time.Hour)
		if tries.Load() != 0 {
			t.Errorf("%d tries while something is out", tries.Load())
		}
		s.note("sync of tank", -1)
		time.Sleep(10 * time.Minute)
		if tries.Load() != 10 || trying.Load() {
			t.Errorf("%d tries in 10 minutes, and going on: %t", tries.Load(), trying.Load())
		}
		time.Sleep(time.Hour)
		if tries.Load() != 10 {
			t.Errorf("%d tries, though it was undone", tries.Load())
		}
	})
}
