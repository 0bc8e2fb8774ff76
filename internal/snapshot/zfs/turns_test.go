package zfs

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// What another set would give back by itself is waited for until its turn is over, and no
// longer; where time presses, not at all. A turn that was long ago does not count.
func TestTurns(t *testing.T) {
	type look struct {
		at       time.Duration
		worth    string
		pressing bool
		over     string
		on       bool
	}
	const second = time.Second
	for name, looks := range map[string][]look{
		"no other":           {{0, "", false, "", false}, {second, "", true, "", false}},
		"one that ends":      {{0, "c", false, "", true}, {second, "c", false, "", true}, {2 * second, "", false, "", false}},
		"one that does not":  {{0, "c", false, "", true}, {9 * second, "c", false, "", true}, {10 * second, "c", false, "c", false}, {60 * second, "c", false, "c", false}},
		"time presses":       {{0, "c", true, "c", false}},
		"time presses later": {{0, "c", false, "", true}, {second, "c", true, "c", false}, {2 * second, "c", false, "", true}},
		"one after the other": {{0, "c", false, "", true}, {6 * second, "c d", false, "", true}, {10 * second, "c d", false, "c", true},
			{16 * second, "c d", false, "c d", false}},
		"room for a moment":     {{0, "c", false, "", true}, {6 * second, "c", false, "", true}, {8 * second, "", false, "", false}, {10 * second, "c", false, "c", false}},
		"room for a while":      {{0, "c", false, "", true}, {6 * second, "", false, "", false}, {10 * second, "c", false, "", true}, {19 * second, "c", false, "", true}},
		"not at every look":     {{0, "c", false, "", true}, {10 * second, "c", false, "c", false}, {12 * second, "", false, "c", false}},
		"looks that are rare":   {{0, "c", false, "", true}, {30 * second, "c", false, "c", false}},
		"room, rare looks":      {{0, "c", false, "", true}, {30 * second, "", false, "", false}, {60 * second, "c", false, "", true}},
		"another one meanwhile": {{0, "c", false, "", true}, {10 * second, "d", false, "", true}},
	} {
		var all turns
		began := time.Now()
		for _, l := range looks {
			over, on := all.take(began.Add(l.at), strings.Fields(l.worth), l.pressing)
			if got := strings.Join(slices.Sorted(maps.Keys(over)), " "); got != l.over || on != l.on {
				t.Errorf("%s after %v: over is %q, want %q; on is %v, want %v", name, l.at, got, l.over, on, l.on)
			}
		}
	}
}
