package zfs

import (
	"reflect"
	"strings"
	"testing"
)

// Those of ours count together as far as nobody else's is between them.
func TestRow(t *testing.T) {
	for names, want := range map[string]string{
		"self":                     "self",
		"theirs self theirs":       "self",
		"ours1 self ours2":         "ours1 self ours2",
		"ours1 ours2 self":         "ours1 ours2 self",
		"ours1 theirs self ours2":  "self ours2",
		"ours1 self theirs ours2":  "ours1 self",
		"theirs ours1 self theirs": "ours1 self",
		"ours1 ours2":              "", // it has just been destroyed
		"":                         "",
	} {
		row := rowOf(strings.Fields(names), "self", func(n string) bool { return strings.HasPrefix(n, "ours") })
		if got := strings.Join(row, " "); got != want {
			t.Errorf("%q: %s, want %s", names, got, want)
		}
	}
}

// A set that cannot end counts as anybody else's snapshot, first or between: what it keeps
// stays.
func TestWithout(t *testing.T) {
	for names, want := range map[string]string{
		"c self b":     "self b",
		"self b c":     "self b",
		"a c self b":   "self b",
		"a self c b":   "a self",
		"a c self":     "self",
		"c a b self c": "a b self",
		"a self b":     "a self b",
		"":             "",
	} {
		var row []string
		for _, set := range strings.Fields(names) {
			row = append(row, "tank/a@"+prefix+set)
		}
		var got []string
		for _, name := range without(row, "tank/a@"+prefix+"self", map[string]bool{"c": true}) {
			_, set, _ := cutSnapshot(name)
			got = append(got, set)
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%q: %s, want %s", names, got, want)
		}
	}
}

// Only other sets whose processes live are counted, also while another one looks whether
// they do.
func TestNeighbours(t *testing.T) {
	dir := t.TempDir()
	r := someRecord(t, dir)
	write(t, r.dir+"/bad.set", "not a record")
	want := []neighbour{{"one", r.tag(), map[uint64]bool{2: true, 3: true}}}
	if got := neighbours(dir, "two"); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := neighbours(dir, "one"); len(got) != 0 {
		t.Errorf("itself: %v", got)
	}
	r.close()
	other, err := readRecord(dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	if other.lives() {
		t.Error("a process that has ended lives")
	}
	if got := neighbours(dir, "two"); len(got) != 0 {
		t.Errorf("of a process that has ended: %v", got)
	}
}
