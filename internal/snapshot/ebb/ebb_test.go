package ebb

import (
	"testing"
	"time"
)

// How much it fell is told of the time back, also where nothing moved between two looks;
// what has become more has not fallen.
func TestGauge(t *testing.T) {
	var g Gauge
	start := time.Now()
	for i, test := range []struct{ after, left, fell uint64 }{
		{0, 100, 0}, {1, 90, 10}, {2, 95, 5}, {6, 80, 15}, {7, 80, 15}, {12, 80, 0}, {30, 70, 10}, {31, 200, 0},
	} {
		if got := g.Fell(start.Add(time.Duration(test.after)*time.Second), test.left, 5*time.Second); got != test.fell {
			t.Errorf("%d: fell by %d, want %d", i, got, test.fell)
		}
	}
}

// What has just begun to fall is seen to go on.
func TestSoon(t *testing.T) {
	var g Gauge
	start := time.Now()
	if got := g.Soon(time.Second, time.Minute); got != 0 {
		t.Errorf("nothing is known: %d", got)
	}
	for i, test := range []struct {
		after int // ms
		left  uint64
		soon  uint64
	}{
		{0, 1000, 0}, {50, 900, 0}, {100, 800, 2000}, {150, 700, 2000}, {1000, 700, 0}, {1400, 600, 250}, {1500, 800, 0},
	} {
		g.Fell(start.Add(time.Duration(test.after)*time.Millisecond), test.left, 2*time.Second)
		if got := g.Soon(100*time.Millisecond, time.Second); got != test.soon {
			t.Errorf("%d: %d, want %d", i, got, test.soon)
		}
	}
}
