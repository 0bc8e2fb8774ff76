package zfs

import (
	"maps"
	"strings"
	"testing"
)

// Those of ours count together as far as nobody else's is between them.
func TestRun(t *testing.T) {
	for names, want := range map[string]string{
		"self":                     "self self",
		"theirs self theirs":       "self self",
		"ours1 self ours2":         "ours1 ours2",
		"ours1 ours2 self":         "ours1 self",
		"ours1 theirs self ours2":  "self ours2",
		"ours1 self theirs ours2":  "ours1 self",
		"theirs ours1 self theirs": "ours1 self",
		"ours1 ours2":              "self self", // it has just been destroyed
		"":                         "self self",
	} {
		first, last := run(strings.Fields(names), "self", func(n string) bool { return strings.HasPrefix(n, "ours") })
		if got := first + " " + last; got != want {
			t.Errorf("%q: %s, want %s", names, got, want)
		}
	}
}

// Only other sets whose processes live are counted, and only those of the dataset.
func TestTagsOf(t *testing.T) {
	dir := t.TempDir()
	r := someRecord(t, dir)
	write(t, r.dir+"/bad.set", "not a record")
	for _, test := range []struct {
		self    string
		dataset uint64
		want    map[string]string
	}{
		{"two", 2, map[string]string{"one": r.tag()}},
		{"two", 3, map[string]string{"one": r.tag()}},
		{"two", 4, nil},
		{"one", 2, nil},
	} {
		if got := tagsOf(dir, test.self, test.dataset); !maps.Equal(got, test.want) {
			t.Errorf("%s, %d: %v", test.self, test.dataset, got)
		}
	}
	r.close()
	if got := tagsOf(dir, "two", 2); len(got) != 0 {
		t.Errorf("of a process that has ended: %v", got)
	}
}
