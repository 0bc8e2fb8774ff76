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
