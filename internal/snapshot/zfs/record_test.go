package zfs

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/zfs"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func someRecord(t *testing.T, dir string) *record {
	t.Helper()
	r, err := createRecord(dir, "one", []intent{{Pool: 1, Dataset: "tank/a", GUID: 2}, {Pool: 1, Dataset: "tank/My Media", GUID: 3}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

// A record is found again, with what was added; while its process lives nobody else owns it.
func TestRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "for", "it")
	r := someRecord(t, dir)
	if err := r.made(map[string]intent{"tank/a": {1, "tank/a", 2, 4}}); err != nil {
		t.Fatal(err)
	}
	again, err := readRecord(dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if again.tag() != r.tag() || again.intent("tank/a") != (intent{1, "tank/a", 2, 4}) || again.intent("tank/My Media") != (intent{1, "tank/My Media", 3, 0}) {
		t.Errorf("%+v", again)
	}
	if ok, _, err := again.own(); ok || err != nil {
		t.Errorf("owned by two: %v", err)
	}
	if _, err := createRecord(dir, "one", nil); problem.CodeOf(err) != problem.Busy {
		t.Errorf("made twice: %v", err)
	}
	r.close()
	if ok, gone, err := again.own(); !ok || gone || err != nil {
		t.Errorf("not owned: %t, %v", gone, err)
	}
	if err := again.remove(); err != nil {
		t.Fatal(err)
	}
	if _, gone, err := again.own(); !gone || err != nil {
		t.Errorf("not gone: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What a power cut takes of the end does not make it another's.
func TestRecordCut(t *testing.T) {
	dir := t.TempDir()
	r := someRecord(t, dir)
	whole, err := os.ReadFile(r.path())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.made(map[string]intent{"tank/a": {1, "tank/a", 2, 4}}); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(r.path(), int64(len(whole)+10)); err != nil {
		t.Fatal(err)
	}
	again, err := readRecord(dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if again.intent("tank/a") != (intent{1, "tank/a", 2, 0}) || len(again.members) != 2 {
		t.Errorf("%+v", again.members)
	}
}

// What is not a record of ours is named, each time, and stays.
func TestForeignRecords(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "notes"), "mine")
	write(t, filepath.Join(dir, "two.set"), `{"stillpoint":1,"set":"other","token":"x"}`)
	write(t, filepath.Join(dir, "three.set"), "")
	if err := os.Symlink("two.set", filepath.Join(dir, "four.set")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "five.set"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		sets, errs := records(dir)
		if len(sets) != 4 || len(errs) != 1 || problem.CodeOf(errs[0]) != problem.LeftoverForeign {
			t.Errorf("%v, %v", sets, errs)
		}
		for _, set := range sets {
			if _, err := readRecord(dir, set); problem.CodeOf(err) != problem.LeftoverForeign {
				t.Errorf("%s: %v", set, err)
			}
		}
	}
	if _, err := createRecord("", "one", nil); problem.CodeOf(err) != problem.StateLost {
		t.Errorf("without a folder: %v", err)
	}
	if _, err := createRecord(filepath.Join(dir, "notes"), "one", nil); problem.CodeOf(err) != problem.StateLost {
		t.Errorf("in a file: %v", err)
	}
}

// The rule by which a snapshot is provably the one on record.
func TestFits(t *testing.T) {
	tagged := zfs.Stats{GUID: 7, Properties: map[string]string{property: "one token"}}
	for what, test := range map[string]struct {
		in      intent
		dataset uint64
		snap    zfs.Stats
		want    bool
	}{
		"guid on record":           {intent{GUID: 2, Snapshot: 7}, 2, tagged, true},
		"before it was on record":  {intent{GUID: 2}, 2, tagged, true},
		"another guid":             {intent{GUID: 2, Snapshot: 8}, 2, tagged, false},
		"of another dataset":       {intent{GUID: 2}, 3, tagged, false},
		"received copy":            {intent{GUID: 2, Snapshot: 7}, 3, tagged, false},
		"without the property":     {intent{GUID: 2}, 2, zfs.Stats{GUID: 7}, false},
		"with another set's token": {intent{GUID: 2}, 2, zfs.Stats{GUID: 7, Properties: map[string]string{property: "one other"}}, false},
	} {
		if got := test.in.fits(test.dataset, test.snap, "one token"); got != test.want {
			t.Errorf("%s: %t", what, got)
		}
	}
}
