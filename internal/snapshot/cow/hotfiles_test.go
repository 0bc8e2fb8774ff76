package cow

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/cow/shield"
)

// A slow cache saves nothing before the context ends.
type slow struct {
	shield.Cache
	begun func()
}

func (s slow) Save(ctx context.Context, _ int, _, _ int64) (at, n int64, err error) {
	s.begun()
	<-ctx.Done()
	return 0, 0, ctx.Err()
}

// A hot file that cannot be copied in time is refused, and the time is named; a
// user who ends the backup meanwhile is not told that of his files.
func TestHotAndSlow(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.must(os.WriteFile(r.path("file"), block('A'), 0o644))
		f, err := os.OpenFile(r.path("file"), os.O_RDWR, 0)
		r.must(err)
		defer f.Close()
		r.p.o.through = func(c shield.Cache) shield.Cache { return slow{c, func() {}} }
		_, err = r.try(nil)
		if problem.CodeOf(err) != problem.UnshieldedFiles || !strings.Contains(err.Error(), "stand still for 1s") || strings.Contains(err.Error(), "MiB are copied") {
			t.Errorf("a slow copy: %v", err)
		}

		ctx, cancel := context.WithCancel(t.Context())
		r.p.o.through = func(c shield.Cache) shield.Cache { return slow{c, cancel} }
		_, err = r.tryIn(ctx, nil)
		if !errors.Is(err, context.Canceled) || problem.CodeOf(err) == problem.UnshieldedFiles {
			t.Errorf("a cancelled copy: %v", err)
		}
		_, err = f.WriteAt(block('B'), 0) // nothing stands still
		r.must(err)
	})
}
