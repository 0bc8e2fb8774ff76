package problem_test

import (
	"errors"
	"fmt"
	"testing"

	"stillpoint/internal/problem"
)

// A job ends with the most specific code, whatever was joined to it on the way.
func TestMostSpecificCode(t *testing.T) {
	coded := func(c problem.Code) error { return problem.New(c, "x", errors.New("cause")) }
	for name, c := range map[string]struct {
		err  error
		want problem.Code
	}{
		"a cause after a step":                  {errors.Join(coded(problem.SnapshotFailed), coded(problem.CacheFull)), problem.CacheFull},
		"a cause before a step":                 {errors.Join(coded(problem.CacheFull), coded(problem.SnapshotFailed)), problem.CacheFull},
		"two causes":                            {errors.Join(coded(problem.WriterBusy), coded(problem.CacheFull)), problem.WriterBusy},
		"two steps":                             {errors.Join(coded(problem.WriterFailed), coded(problem.SnapshotFailed)), problem.WriterFailed},
		"a step, and what could not be undone":  {errors.Join(coded(problem.SnapshotFailed), coded(problem.ReleaseFailed)), problem.SnapshotFailed},
		"what could not be undone, and a cause": {errors.Join(coded(problem.ReleaseFailed), coded(problem.VolumeLost)), problem.VolumeLost},
		"nothing better":                        {errors.Join(errors.New("plain"), coded(problem.ReleaseFailed)), problem.ReleaseFailed},
		"uncatalogued, and a step":              {errors.Join(coded(problem.Uncatalogued), coded(problem.SnapshotFailed)), problem.SnapshotFailed},
		"the cause in a chain":                  {problem.New(problem.SnapshotFailed, "", coded(problem.CacheFull)), problem.CacheFull},
		"a step below a demand":                 {problem.New(problem.NotApplication, "", coded(problem.WriterFailed)), problem.WriterFailed},
		"joined below":                          {fmt.Errorf("commit: %w", problem.New(problem.SnapshotFailed, "set", errors.Join(coded(problem.SnapshotFailed), fmt.Errorf("b: %w", coded(problem.FreezeBlocked))))), problem.FreezeBlocked},
		"several %w":                            {fmt.Errorf("%w, and then %w", coded(problem.NoProvider), coded(problem.NotAllowed)), problem.NotAllowed},
		"joined twice":                          {errors.Join(errors.Join(errors.New("plain"), coded(problem.TargetLost)), errors.Join(coded(problem.TargetFull))), problem.TargetFull},
	} {
		if got := problem.CodeOf(c.err); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
