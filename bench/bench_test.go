package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The data of two machines are the same, and those of two seeds are not.
func TestDataComeFromTheSeed(t *testing.T) {
	made := func(seed uint64) string {
		d, err := newDataset(t.Context(), seed, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "files")
		if _, err := d.tree(t.Context(), dir, 300); err != nil {
			t.Fatal(err)
		}
		if err := d.large(t.Context(), filepath.Join(dir, "large"), 20<<20); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	one, again, other := made(1), made(1), made(2)
	if err := same(t.Context(), one, again); err != nil {
		t.Error(err)
	}
	if err := same(t.Context(), one, other); err == nil {
		t.Error("two seeds make the same data")
	}
}

func TestTable(t *testing.T) {
	ms := []measure{
		{Task: firstFiles, Program: "restic", Wall: 4 * time.Second, Synced: 5 * time.Second, CPU: time.Second, Memory: 1 << 20, Stored: 300},
		{Task: firstFiles, Program: "restic", Wall: 2 * time.Second, Synced: 5 * time.Second, CPU: time.Second, Memory: 1 << 20, Stored: 300},
		{Task: firstFiles, Program: "borg", Wall: 5 * time.Second, Synced: 5 * time.Second, CPU: time.Second, Memory: 1 << 20, Stored: 200},
		{Task: firstFiles, Program: "stillpoint", Wall: 6 * time.Second, Synced: 6 * time.Second, CPU: time.Second, Memory: 1 << 20, Stored: 100},
	}
	var b strings.Builder
	table(&b, []string{"restic", "borg", "stillpoint"}, ms)
	for _, line := range []string{
		"| first backup of the files | time | 3.00 s | 5.00 s | 6.00 s | 2.00 |\n",
		"|  | size of repository | 300 B | 200 B | 100 B | 0.50 |\n",
	} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("missing %q in\n%s", line, b.String())
		}
	}
	if strings.Contains(b.String(), restoreLarge) {
		t.Error("a task that was not done is in the table")
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "200MiB": 200 << 20, "4GiB": 4 << 30, "1K": 1 << 10, "17B": 17} {
		if n, err := parseSize(s); err != nil || n != want {
			t.Errorf("%s is %d, %v; want %d", s, n, err, want)
		}
	}
	for _, s := range []string{"", "x", "-1", "9999999T", "1.5G"} {
		if n, err := parseSize(s); err == nil {
			t.Errorf("%q is taken for %d", s, n)
		}
	}
}
