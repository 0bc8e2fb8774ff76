package zfs

import (
	"slices"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/zfs"
)

// The room of a dataset is bounded by its pool and by the quotas around it, not by a
// refquota, for which snapshots do not count.
func TestLimits(t *testing.T) {
	if got, want := around("tank/a/b"), []string{"tank/a/b", "tank/a", "tank"}; !slices.Equal(got, want) {
		t.Errorf("around: %q", got)
	}
	for name, test := range map[string]struct {
		stats zfs.Stats
		want  []limit
	}{
		"tank/a":   {zfs.Stats{Used: 70, Available: 5}, nil},
		"tank/a/b": {zfs.Stats{Used: 70, Available: 5, Quota: 100}, []limit{{bound{"tank/a/b", true}, 100, 30}}},
		"tank/c":   {zfs.Stats{Used: 101, Quota: 100}, []limit{{bound{"tank/c", true}, 100, 0}}},
		"tank":     {zfs.Stats{Used: 70, Available: 30}, []limit{{bound{"tank", false}, 100, 30}}},
		"home":     {zfs.Stats{Used: 70, Available: 30, Quota: 100}, []limit{{bound{"home", true}, 100, 30}, {bound{"home", false}, 100, 30}}},
	} {
		if got := limitsOf(name, test.stats); !slices.Equal(got, test.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	b := bound{"tank/a", true}
	if !b.covers("tank/a") || !b.covers("tank/a/b") || b.covers("tank/ab") || b.covers("tank") {
		t.Error("what a quota is for")
	}
}

// A limit is low at the floor, and before, if it falls so fast that it would soon be there.
func TestLow(t *testing.T) {
	const gb = 1_000_000_000
	for _, test := range []struct {
		all, left, fell uint64
		want            bool
	}{
		{100 * gb, 4 * gb, 0, false},
		{100 * gb, 2 * gb, 0, true},
		{100 * gb, 20 * gb, 5 * gb, false},
		{100 * gb, 17 * gb, 5 * gb, true},
		{10_000 * gb, 9 * gb, 0, false},
		{10_000 * gb, 7 * gb, 0, true},
	} {
		l := limit{bound{"tank", false}, test.all, test.left}
		if l.low(test.fell) != test.want {
			t.Errorf("%+v is low: %v", test, !test.want)
		}
		if err := l.spent(test.fell, gb); !problem.Is(err, problem.PoolFull) {
			t.Error(err)
		}
	}
}

// It presses when a third of what low leaves has gone, and half of the reserve.
func TestPressing(t *testing.T) {
	const gb = 1_000_000_000
	for _, test := range []struct {
		left, fell uint64
		want       bool
	}{
		{20 * gb, 0, false}, {2 * gb, 0, false}, {1 * gb, 0, true}, {17 * gb, 5 * gb, false}, {12 * gb, 5 * gb, false}, {11 * gb, 5 * gb, true}, {0, 0, true},
	} {
		if got := (limit{bound{"tank", false}, 100 * gb, test.left}).pressing(test.fell); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// Snapshots that keep little are ended only where the room is really short.
func TestWorthwhile(t *testing.T) {
	const gb = 1_000_000_000
	for _, test := range []struct {
		left, kept uint64
		want       bool
	}{
		{20 * gb, 2 * gb, true}, {20 * gb, gb / 2, false}, {5 * gb, gb / 2, false}, {3 * gb, gb / 2, true}, {3 * gb, gb / 10, false}, {gb / 2, gb / 10, true}, {0, 2 << 20, true}, {0, 1000, false}, {0, 0, false},
	} {
		if got := (limit{bound{"tank", false}, 10_000 * gb, test.left}).worthwhile(test.kept); got != test.want {
			t.Errorf("%d left, %d kept: %v", test.left, test.kept, got)
		}
	}
}

// How far a limit fell is told of the last seconds, also where nothing moved between
// two transaction groups.
func TestGauge(t *testing.T) {
	var g gauge
	start := time.Now()
	for i, test := range []struct{ after, left, fell uint64 }{
		{0, 100, 0}, {1, 90, 10}, {2, 95, 5}, {6, 80, 15}, {7, 80, 15}, {12, 80, 0}, {30, 70, 10}, {31, 200, 0},
	} {
		if got := g.fell(start.Add(time.Duration(test.after)*time.Second), test.left); got != test.fell {
			t.Errorf("%d: fell by %d, want %d", i, got, test.fell)
		}
	}
}

// A quota that is made smaller is not taken for a program that writes.
func TestQuotaChanged(t *testing.T) {
	var g gauge
	start := time.Now()
	for i, test := range []struct{ after, all, left, fell uint64 }{
		{0, 1000, 900, 0}, {1, 1000, 890, 10}, {2, 500, 390, 0}, {3, 500, 370, 20}, {4, 1000, 860, 0},
	} {
		l := limit{bound{"tank/a", true}, test.all, test.left}
		if got := g.of(l).fell(start.Add(time.Duration(test.after)*time.Second), l.left); got != test.fell {
			t.Errorf("%d: fell by %d, want %d", i, got, test.fell)
		}
	}
	quota := limit{bound{"tank/a", true}, 500, 400}
	of := gauge{quota: 1000}
	of.turns.take(start, []string{"c"}, false)
	if of.of(quota); len(of.turns) != 1 {
		t.Error("whose turn it was is forgotten")
	}
	pool := limit{bound{"tank", false}, 100, 50} // its size is what is used and what is left
	of = gauge{}
	of.of(pool).fell(start, 50)
	if pool.all = 99; of.of(pool).fell(start, 40) != 10 {
		t.Error("that of a pool began anew")
	}
}
