package bank

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Each fault of a copy is found, and a good one is good.
func TestPrefix(t *testing.T) {
	clients := [][]transfer{
		{{1, 3}, {4, 6}, {7, 9}, {10, 0}},
		{{1, 2}, {3, 8}, {9, 11}},
	}
	for _, c := range []struct {
		has           map[int]int
		after, before Moment
		want          string
	}{
		{map[int]int{0: 2, 1: 1}, 6, 7, ""},
		{map[int]int{0: 2, 1: 2}, 6, 7, ""},
		{map[int]int{0: 4, 1: 3}, 11, 12, ""},
		{map[int]int{0: 3, 1: 3}, 11, 12, ""}, // what is not acknowledged may be there or not
		{nil, 0, 1, ""},
		{map[int]int{0: 1, 1: 1}, 7, 8, "acknowledged at 6ns and is missing, and the instant"},
		{map[int]int{0: 3, 1: 1}, 6, 6, "began at 7ns is there"},
		{map[int]int{0: 4, 1: 1}, 6, 12, "and one that began at 10ns is there"},
		{map[int]int{0: 5, 1: 1}, 6, 7, "5 transfers of 4"},
	} {
		err := prefix(clients, c.has, time.Duration(c.after), time.Duration(c.before))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v between %d and %d: %v; want %q", c.has, c.after, c.before, err, c.want)
		}
	}
}

// What was under way between two moments counts, and nothing else.
func TestWaits(t *testing.T) {
	b := &Bank{began: time.Now().Add(-time.Hour), clients: [][]transfer{
		{{1, 3}, {4, 6}, {7, 17}, {20, 21}},
		{{1, 5}, {9, 11}},
		{{2, 0}}, // waits still
	}}
	got := b.Waits(6, 9)
	slices.Sort(got)
	if len(got) != 4 || !slices.Equal(got[:3], []time.Duration{2, 2, 10}) || got[3] < time.Hour {
		t.Errorf("%v", got)
	}
	if last, done := b.Since(8); last < time.Hour || done {
		t.Errorf("%v, %v", last, done)
	}
	b.clients = b.clients[:2]
	if last, done := b.Since(8); last != 9 || !done {
		t.Errorf("%v, %v", last, done)
	}
	if at := b.At(time.Now().Add(-time.Minute)); at < Moment(58*time.Minute) || at > Moment(59*time.Minute+10*time.Second) {
		t.Errorf("a minute ago was after %v", time.Duration(at))
	}
}
