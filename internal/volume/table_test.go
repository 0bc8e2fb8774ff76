package volume

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stillpoint/internal/problem"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestRecordedHosts reads the hosts of testdata and compares everything with
// their golden files, and the tables of Find and Below with the archives.
func TestRecordedHosts(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, archive := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(archive), ".txtar"), func(t *testing.T) {
			h := loadHost(t, archive)
			table := readHost(t, h)
			compareGolden(t, strings.TrimSuffix(archive, ".txtar")+".json", dump(t, table))
			if q := h.probe.unasked(); len(q) > 0 {
				t.Errorf("answers that nobody asked for: %q", q)
			}
			checkFind(t, table, h.find)
			checkBelow(t, table, h.below)
		})
	}
}

// dump writes all that a table says.
func dump(t *testing.T, table *Table) string {
	t.Helper()
	all := struct {
		Volumes  []Volume
		Swaps    []Swap
		Warnings []string
	}{table.Volumes(), table.Swaps(), nil}
	for _, w := range table.Warnings() {
		all.Warnings = append(all.Warnings, w.Error())
	}
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

func compareGolden(t *testing.T, golden, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Fatalf("%s:%d: got %s\nwant %s", golden, i+1, g[i], w[i])
		}
	}
	t.Fatalf("%s: got %d lines, want %d", golden, len(g), len(w))
}

// checkFind goes through lines "PATH | VOLUME | MOUNT | PATH IN THE VOLUME" and
// "PATH | ! CODE".
func checkFind(t *testing.T, table *Table, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "|")
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		v, m, rel, err := table.Find(f[0])
		if code, ok := strings.CutPrefix(f[1], "! "); ok {
			if got := problem.CodeOf(err); got != problem.Code(code) {
				t.Errorf("Find(%q): got code %q (%v), want %q", f[0], got, err, code)
			}
			continue
		}
		if err != nil {
			t.Errorf("Find(%q): %v", f[0], err)
			continue
		}
		if v.ID != ID(f[1]) || m.Point != f[2] || rel != f[3] {
			t.Errorf("Find(%q):\n got %s | %s | %s\nwant %s | %s | %s", f[0], v.ID, m.Point, rel, f[1], f[2], f[3])
		}
	}
}

// checkBelow goes through blocks of a line "PATH" and indented lines
// "POINT | VOLUME".
func checkBelow(t *testing.T, table *Table, text string) {
	t.Helper()
	for block := range strings.SplitSeq("\n"+strings.TrimSuffix(text, "\n"), "\n/") {
		path, want, _ := strings.Cut("/"+block, "\n")
		if block == "" {
			continue
		}
		var got []string
		for _, b := range table.Below(path) {
			got = append(got, "  "+b.Mount.Point+" | "+string(b.Volume.ID))
		}
		if g := strings.Join(got, "\n"); g != strings.TrimSuffix(want, "\n") {
			t.Errorf("Below(%q):\n got\n%s\nwant\n%s", path, g, want)
		}
	}
}
