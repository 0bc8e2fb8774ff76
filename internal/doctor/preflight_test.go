package doctor

import (
	"context"
	"testing"
	"time"

	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// The preflight is made before each backup. The best of several is what it costs
// where nobody else wants the processors.
func TestPreflightIsCheap(t *testing.T) {
	v := scratch.New(t, "ext4", 64*mib)
	s := subject(t, v.Dir)
	best := time.Hour
	for range 10 {
		began := time.Now()
		fs := Run(t.Context(), Preflight(Here(), s, Caching{Volumes: s.Volumes}, time.Now(), Last{}))
		best = min(best, time.Since(began))
		if Worst(fs) == Unknown {
			t.Errorf("got %+v", fs)
		}
	}
	processes := 0
	must(t, eachProcess(t.Context(), Here(), func(int, string) { processes++ }))
	t.Logf("%s, with %d processes", best, processes)
	if best > 100*time.Millisecond {
		t.Errorf("the preflight takes %s at best", best)
	}
}

// Of a whole host, who can do without touching a volume is asked so.
func TestChooseLooksOnly(t *testing.T) {
	s := Subject{Volumes: []volume.Volume{{ID: "v"}}}
	p := &looker{Provider: providers()[1]}
	if c := Choose(t.Context(), s, []snapshot.Provider{p})["v"]; c.Err != nil || p.checked != 0 || p.looked != 1 {
		t.Errorf("whole: %+v, %+v", c, p)
	}
	s.Paths = []string{"/srv"}
	if c := Choose(t.Context(), s, []snapshot.Provider{p})["v"]; c.Err != nil || p.checked != 1 || p.looked != 1 {
		t.Errorf("a path: %+v, %+v", c, p)
	}
}

type looker struct {
	snapshot.Provider
	checked, looked int
}

func (l *looker) Check(context.Context, volume.Volume) error { l.checked++; return nil }
func (l *looker) Look(context.Context, volume.Volume) error  { l.looked++; return nil }
