package backup

import (
	"errors"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// An unshown is a snapshot that could not be shown.
type unshown struct {
	snapshot.Snapshot
	err error
}

func (unshown) ID() string   { return "unshown" }
func (unshown) Root() string { return "/proc/self/fd/none" }
func (s unshown) Err() error { return s.err }

// Where a snapshot could not be shown, that is what a backup of it says, and not that
// a path is missing.
func TestUnshown(t *testing.T) {
	for _, c := range []struct {
		err  error
		code problem.Code
	}{
		{problem.Newf(problem.PoolFull, "", "planned"), problem.PoolFull},
		{errors.New("planned"), problem.SnapshotLost},
		{nil, problem.PathMissing},
	} {
		var r reading
		_, err := r.site(&capture{snaps: map[volume.ID]snapshot.Snapshot{"a": unshown{err: c.err}}}, "a", ".", "/srv")
		if problem.CodeOf(err) != c.code {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}
