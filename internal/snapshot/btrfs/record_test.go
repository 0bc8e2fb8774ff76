package btrfs

import (
	"os"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
)

// dead makes a set whose process has ended, of one path, and returns its record's path.
func dead(t *testing.T, d disk, id, path string) string {
	t.Helper()
	pending, err := New(host).Prepare(t.Context(), id, []snapshot.Target{of(find(t, d.Dir), path)})
	must(t, err)
	dieWith(t, commit(t, pending)[0])
	return d.in(folderName + "/" + id + recordSuffix)
}

// cleaned releases all leftovers and wants nothing to be left.
func cleaned(t *testing.T, d disk) {
	t.Helper()
	left, err := New(host).Leftovers(t.Context())
	must(t, err)
	if len(left) == 0 {
		t.Error("no leftovers")
	}
	for _, l := range left {
		must(t, l.Release(t.Context()))
	}
	nothingLeft(t, d)
}

// A power cut takes what was written to the record after the snapshots. A set
// of one is the hard case: nothing is committed between record and snapshot
// but by Prepare.
func TestRecordCut(t *testing.T) {
	for _, path := range []string{".", "@"} {
		t.Run(path, func(t *testing.T) { testRecordCut(t, path) })
	}
}

func testRecordCut(t *testing.T, path string) {
	d := newDisk(t)
	d.create("@")
	record := dead(t, d, "cut", path)
	text, err := os.ReadFile(record)
	must(t, err)
	intents := 0
	for _, line := range strings.SplitAfter(string(text), "\n") {
		if strings.Contains(line, `"snapshot":`) {
			break
		}
		intents += len(line)
	}
	must(t, os.Truncate(record, int64(intents+20))) // within a line
	cleaned(t, d)
}

// Without the tag, or with that of another set or file system, or in a form
// that is not ours, a record proves nothing.
func TestRecordForged(t *testing.T) {
	for what, forge := range map[string]func(t *testing.T, record string){
		"no tag":        func(t *testing.T, r string) { scratch.Run(t, "setfattr", "-x", recordTag, r) },
		"another's tag": func(t *testing.T, r string) { scratch.Run(t, "setfattr", "-n", recordTag, "-v", "1 other 0", r) },
		"copied": func(t *testing.T, r string) {
			to := strings.Replace(r, "forged", "copied", 1)
			scratch.Run(t, "cp", "-a", r, to)
			scratch.Run(t, "rm", r)
		},
		"not a record": func(t *testing.T, r string) { must(t, os.WriteFile(r, []byte("{}\n"), 0)) },
		"empty":        func(t *testing.T, r string) { must(t, os.Truncate(r, 0)) },
		"a link": func(t *testing.T, r string) {
			must(t, os.Rename(r, r+"x"))
			must(t, os.Symlink(r+"x", r))
		},
	} {
		t.Run(what, func(t *testing.T) {
			d := newDisk(t)
			d.create("@")
			forge(t, dead(t, d, "forged", "."))
			before := scratch.Run(t, "btrfs", "subvolume", "list", "-u", d.Dir)
			left, err := New(host).Leftovers(t.Context())
			if len(left) > 0 {
				t.Errorf("%d leftovers", len(left))
			}
			if !problem.Is(err, problem.LeftoverForeign) {
				t.Errorf("reported: %v", err)
			}
			if after := scratch.Run(t, "btrfs", "subvolume", "list", "-u", d.Dir); after != before {
				t.Errorf("subvolumes are\n%s\nand were\n%s", after, before)
			}
		})
	}
}

// What somebody puts beside our snapshots is named, and stays; what is ours
// goes.
func TestStrangers(t *testing.T) {
	d := newDisk(t)
	d.create("@")
	dead(t, d, "strange", ".")
	must(t, os.WriteFile(d.in(folderName+"/strange/mine"), []byte("mine"), 0o600))
	p := New(host)
	left, err := p.Leftovers(t.Context())
	if !problem.Is(err, problem.LeftoverForeign) || len(left) != 2 {
		t.Errorf("%d leftovers, %v", len(left), err)
	}
	for i, l := range left {
		err := l.Release(t.Context())
		if last := i == len(left)-1; last != problem.Is(err, problem.LeftoverForeign) {
			t.Errorf("release %d: %v", i, err)
		}
	}
	if n := names(t, d.in(folderName+"/strange")); n != "mine" {
		t.Errorf("left in the set: %q", n)
	}
	must(t, os.Remove(d.in(folderName+"/strange/mine")))
	cleaned(t, d)
}

// Ids are those of files, so they are limited.
func TestValidID(t *testing.T) {
	for id, want := range map[string]bool{"a1": true, strings.Repeat("z", 32): true, strings.Repeat("z", 33): false, "": false, "A": false, "a.b": false, "ä": false} {
		if validID(id) != want {
			t.Errorf("%q: %t", id, !want)
		}
	}
}
