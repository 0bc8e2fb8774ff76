package zfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// A view that comes later than is waited for is taken down by whoever made it, and nobody
// sees any of it.
func TestLateView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shownSet(t)
		tg, m := s.targets[0], s.members["tank/a"]
		m.mount.root, tg.view, tg.shown, tg.index = tg.view.root, view{}, false, 9
		answer := make(chan struct{})
		s.p.host = func(context.Context) (*volume.Table, error) { <-answer; return &volume.Table{}, nil }
		in := "/proc/self/fd/" + strconv.Itoa(int(s.space.Root().Fd())) + "/target9/in"
		sees := func(when string) {
			t.Helper()
			if err := tg.Err(); !problem.Is(err, problem.SnapshotLost) || !problem.Is(err, problem.ZFSStuck) {
				t.Errorf("%s: %v", when, err)
			}
			if parts := tg.Parts(); len(parts) != 1 || len(tg.Gaps()) != 0 || tg.Root() != nowhere || tg.view.root != nil {
				t.Errorf("%s it shows: %v, %v, %s", when, parts, tg.Gaps(), tg.Root())
			}
		}
		sees("given up")
		if _, err := os.Stat(in); err != nil {
			t.Errorf("nothing is under way: %v", err)
		}
		if err := tg.Release(t.Context()); !problem.Is(err, problem.ZFSStuck) {
			t.Errorf("release while it is under way: %v", err)
		}
		close(answer)
		synctest.Wait()
		sees("late")
		if _, err := os.Stat(in); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is still mounted: %v", err)
		}
		for _, tg := range s.targets {
			if err := tg.Release(t.Context()); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(againMost) // of the bubble: what goes on with the Release that failed ends
	})
}
