package tree

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
)

func TestLinkToAnotherFileSystem(t *testing.T) {
	scratch.NeedRoot(t)
	root := place(t, t.TempDir(), "mnt/")
	mount(t, "-t", "tmpfs", "none", filepath.Join(root, "mnt"))
	target := openTarget(t, root)
	m := target.Root()
	if _, _, err := makeFile(m, ourEntry("first", File, ours), "x", Never); err != nil {
		t.Fatal(err)
	}
	first, err := m.Place("first")
	if err != nil {
		t.Fatal(err)
	}
	mnt, outcome, err := m.Dir(ourEntry("mnt", Directory, ours), Never)
	if outcome != Same || err != nil {
		t.Fatal(outcome, err)
	}
	_, err = mnt.Link(ourEntry("second", File, ours), Never, first)
	if !errors.Is(err, ErrNoLink) {
		t.Error(err)
	}
	wantCode(t, err, problem.AttributeUnset)
	if err := target.Close(); err != nil {
		t.Error(err)
	}
}

// TestLinkIsToTheVeryFile: when something else has taken the place of the
// first name, nothing is linked.
func TestLinkIsToTheVeryFile(t *testing.T) {
	root := t.TempDir()
	m := openTarget(t, root).Root()
	if _, _, err := makeFile(m, ourEntry("first", File, ours), "x", Never); err != nil {
		t.Fatal(err)
	}
	first, err := m.Place("first")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(root, "first"), filepath.Join(root, "away")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("away", filepath.Join(root, "first")); err != nil {
		t.Fatal(err)
	}
	_, err = m.Link(ourEntry("second", File, ours), Never, first)
	wantCode(t, err, problem.TargetUnsafe)
	if _, err := os.Lstat(filepath.Join(root, "second")); !os.IsNotExist(err) {
		t.Error("it was linked")
	}
}

func TestLinkOverwrites(t *testing.T) {
	for _, c := range []struct {
		there   string
		o       Overwrite
		outcome Outcome
	}{
		{"other", Never, KeptDifferent},
		{"other", Newer, KeptNewer},
		{"other", Always, Replaced},
		{"linked", Always, Same},
		{"equal", Never, Same},
		{"equal", Always, Replaced},
	} {
		root := t.TempDir()
		target := openTarget(t, root)
		m := target.Root()
		e := ourEntry("first", File, ours)
		e.Size = int64(len("content"))
		if _, _, err := makeFile(m, e, "content", Never); err != nil {
			t.Fatal(err)
		}
		first, second := filepath.Join(root, "first"), filepath.Join(root, "second")
		switch c.there {
		case "linked":
			if err := os.Link(first, second); err != nil {
				t.Fatal(err)
			}
		case "equal":
			if err := errors.Join(os.WriteFile(second, []byte("content"), 0o644), os.Chtimes(second, ours, ours)); err != nil {
				t.Fatal(err)
			}
		default:
			place(t, root, "second")
		}
		p, err := m.Place("first")
		if err != nil {
			t.Fatal(err)
		}
		e.Name = "second"
		outcome, err := m.Link(e, c.o, p)
		if outcome != c.outcome || (err != nil) != (outcome == KeptDifferent) {
			t.Errorf("%+v: %s, %v", c, outcome, err)
		}
		a, _ := os.Stat(first)
		b, _ := os.Stat(second)
		if linked := os.SameFile(a, b); linked != (outcome == Replaced || c.there == "linked") {
			t.Errorf("%+v: linked %t", c, linked)
		}
		if left := temporaryNames(t, root); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	}
}
