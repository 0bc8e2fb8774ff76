package tree

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/file"
)

// TestNestedTargets: a restore to a directory keeps others away from all that
// holds it and all that it holds, or each would remove the temporary names of
// the other. Beside it they may go on.
func TestNestedTargets(t *testing.T) {
	root := place(t, t.TempDir(), "x/a/b/", "x/c/")
	x, b := filepath.Join(root, "x"), filepath.Join(root, "x/a/b")
	for _, pair := range [][2]string{{x, b}, {b, x}} {
		first := openTarget(t, pair[0])
		living := temporary + first.run + "-1"
		place(t, b, living)
		_, err := OpenTarget(pair[1])
		wantCode(t, err, problem.Busy)
		if got := temporaryNames(t, root); len(got) != 1 {
			t.Errorf("the name of a living run was removed: %q", got)
		}
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		second := openTarget(t, pair[1])
		m := second.Root()
		if pair[1] == x {
			if m, _, err = m.Dir(ourEntry("a", Directory, ours), Never); err == nil {
				_, _, err = m.Dir(ourEntry("b", Directory, ours), Never)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := temporaryNames(t, root); len(got) != 0 {
			t.Errorf("the name of a dead run is still there: %q", got)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	}
	openTarget(t, b)
	openTarget(t, filepath.Join(root, "x/c"))
}

// TestOnlyWhatCanBeSet restores twice to a file system that has no owners, no
// modes and no extended attributes, like FAT: the second run finds everything
// the same.
func TestOnlyWhatCanBeSet(t *testing.T) {
	to := served(t, "fat")
	for _, want := range []Outcome{Made, Same} {
		target := openTarget(t, to)
		target.Keep()
		dir := Entry{Name: "d", Type: Directory, Mode: 0o710, UID: 1000, GID: 1001, Modified: ours}
		d, outcome, err := target.Root().Dir(dir, Never)
		if outcome != want || err != nil {
			t.Fatalf("directory: %s, %v", outcome, err)
		}
		e := Entry{Name: "x", Type: File, Mode: 0o604, UID: 1000, GID: 1001, Modified: ours}
		outcome, unset, err := makeFile(d, e, "x", Never)
		if outcome != want || err != nil {
			t.Errorf("file: %s, %v", outcome, err)
		}
		if outcome == Made && len(unset) != 3 { // owner, group, mode
			t.Errorf("the file system is not like FAT: %v", unset)
		}
		unset, err = d.Finish(dir)
		if err != nil || outcome == Same && len(unset) > 0 {
			t.Errorf("finish: %v, %v", unset, err)
		}
		if err := target.Close(); err != nil {
			t.Error(err)
		}
	}
	if left := temporaryNames(t, to); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestExchangedSpecial: what is put in the place of a FIFO under its temporary
// name is not given away.
func TestExchangedSpecial(t *testing.T) {
	scratch.NeedRoot(t)
	root := place(t, t.TempDir(), "precious")
	m := openTarget(t, root).Root()
	e := Entry{Name: "fifo", Type: FIFO, Mode: 0o666, UID: 1000, GID: 1000, Modified: ours}
	p, err := m.look(e)
	if err != nil {
		t.Fatal(err)
	}
	defer p.give()
	if err := syscall.Mkfifo(filepath.Join(root, "theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Link(filepath.Join(root, "theirs"), filepath.Join(root, "again")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"precious", "again"} {
		_, err := p.setPlace(name, file.FIFO)
		wantCode(t, err, problem.TargetUnsafe)
		if got := run(t, "stat", "-c", "%u", filepath.Join(root, name)); strings.TrimSpace(got) != "0" {
			t.Errorf("%s belongs to %s", name, got)
		}
	}
}
