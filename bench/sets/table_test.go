//go:build bench

package sets_test

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A series is what was measured, once for each capture.
type series []time.Duration

func (s series) median() time.Duration {
	if len(s) == 0 {
		return 0
	}
	s = slices.Sorted(slices.Values(s))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func (s series) String() string {
	if len(s) == 0 {
		return "none"
	}
	return fmt.Sprintf("%.0f / %.0f ms", milliseconds(s.median()), milliseconds(slices.Max(s)))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// A row is one set of volumes.
type row struct {
	set              string
	hold, rest       series // of captures
	synced, alone    series // of fsfreeze
	rate             float64
	captures, failed int
}

type table []row

// most is what the median of the hold is to be.
const most = 50 * time.Millisecond

func (t table) String() string {
	var b strings.Builder
	b.WriteString("| median / worst | hold | application window | sync, then fsfreeze | fsfreeze alone | writes, MB/s | captures, not to be had | hold ≤ 50 ms |\n|---|---:|---:|---:|---:|---:|---:|---|\n")
	for _, r := range t {
		reached := "no"
		if r.hold.median() <= most {
			reached = "yes"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %.0f | %d, %d | %s |\n", r.set, r.hold, r.rest, r.synced, r.alone, r.rate, r.captures, r.failed, reached)
	}
	return b.String()
}
