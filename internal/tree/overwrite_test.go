package tree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

func openTarget(t *testing.T, path string) *Target {
	t.Helper()
	target, err := OpenTarget(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = target.Close() })
	return target
}

// makeFile restores one file.
func makeFile(m *Maker, e Entry, content string, o Overwrite) (Outcome, []Unset, error) {
	e.Size = int64(len(content))
	f, outcome, err := m.File(e, o)
	if f == nil {
		return outcome, nil, err
	}
	if _, err := f.WriteAt([]byte(content), 0); err != nil {
		return outcome, nil, errors.Join(err, f.Abort())
	}
	unset, err := f.Commit()
	return outcome, unset, err
}

func ourEntry(name string, typ Type, at time.Time) Entry {
	return Entry{Name: name, Type: typ, Mode: 0o644, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Modified: at}
}

var (
	older = time.Unix(1_500_000_000, 5)
	ours  = time.Unix(1_600_000_000, 123_456_789)
	newer = time.Unix(1_700_000_000, 6)
)

// TestOverwrite puts a file, a symbolic link, a FIFO and a directory where each
// kind of thing may already be.
func TestOverwrite(t *testing.T) {
	there := map[string]func(path string) error{
		"nothing": func(string) error { return nil },
		"same file": func(p string) error {
			return errors.Join(os.WriteFile(p, []byte("ours"), 0o644), os.Chtimes(p, ours, ours))
		},
		"other size": func(p string) error {
			return errors.Join(os.WriteFile(p, []byte("longer"), 0o600), os.Chtimes(p, ours, ours))
		},
		"older file": func(p string) error {
			return errors.Join(os.WriteFile(p, []byte("THEM"), 0o600), os.Chtimes(p, older, older))
		},
		"newer file": func(p string) error {
			return errors.Join(os.WriteFile(p, []byte("THEM"), 0o600), os.Chtimes(p, newer, newer))
		},
		"same link":  func(p string) error { return os.Symlink("ours", p) },
		"other link": func(p string) error { return os.Symlink("theirs", p) }, // and it is of now, thus newer
		"fifo":       func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"empty dir":  func(p string) error { return os.Mkdir(p, 0o755) },
		"full dir":   func(p string) error { return os.MkdirAll(filepath.Join(p, "x"), 0o755) },
	}
	type outcomes [3]Outcome // under Never, Newer, Always
	kept := outcomes{KeptDifferent, KeptDifferent, KeptDifferent}
	gone := outcomes{KeptDifferent, KeptNewer, Replaced}
	same := outcomes{Same, Same, Same}
	away := outcomes{KeptDifferent, KeptDifferent, Replaced}
	want := map[Type]map[string]outcomes{
		File: {
			"nothing": {Made, Made, Made}, "same file": {Same, Same, Replaced}, "other size": gone, "older file": {KeptDifferent, Replaced, Replaced}, "newer file": gone,
			"same link": gone, "other link": gone, "fifo": gone, "empty dir": away, "full dir": kept,
		},
		Symlink: {
			"nothing": {Made, Made, Made}, "same file": gone, "older file": {KeptDifferent, Replaced, Replaced}, "newer file": gone,
			"same link": same, "other link": gone, "fifo": gone, "empty dir": away, "full dir": kept,
		},
		FIFO: {
			"nothing": {Made, Made, Made}, "older file": {KeptDifferent, Replaced, Replaced}, "newer file": gone,
			"other link": gone, "fifo": same, "empty dir": away, "full dir": kept,
		},
		Directory: {
			"nothing": {Made, Made, Made}, "older file": away, "newer file": away,
			"other link": away, "fifo": away, "empty dir": same, "full dir": same,
		},
	}
	for typ, cases := range want {
		for what, outcomes := range cases {
			for o, want := range outcomes {
				t.Run(strings.Join([]string{string(typ), what, []string{"Never", "Newer", "Always"}[o]}, "/"), func(t *testing.T) {
					root := t.TempDir()
					if err := there[what](filepath.Join(root, "x")); err != nil {
						t.Fatal(err)
					}
					before := describe(t, root)
					got, err := makeOne(t, openTarget(t, root).Root(), typ, Overwrite(o))
					if got != want {
						t.Errorf("outcome %q, want %q (%v)", got, want, err)
					}
					checkOutcome(t, got, err, before, describe(t, root), typ)
				})
			}
		}
	}
}

func makeOne(t *testing.T, m *Maker, typ Type, o Overwrite) (Outcome, error) {
	t.Helper()
	e := ourEntry("x", typ, ours)
	switch typ {
	case File:
		outcome, unset, err := makeFile(m, e, "ours", o)
		if len(unset) > 0 {
			t.Error(unset)
		}
		return outcome, err
	case Directory:
		e.Mode = 0o755
		below, outcome, err := m.Dir(e, o)
		if below != nil {
			if _, err := below.Finish(e); err != nil {
				t.Error(err)
			}
		}
		return outcome, err
	case Symlink:
		e.Target = "ours"
		outcome, _, err := m.Symlink(e, o)
		return outcome, err
	}
	outcome, _, err := m.Special(e, o)
	return outcome, err
}

func checkOutcome(t *testing.T, got Outcome, err error, before, after string, typ Type) {
	t.Helper()
	switch got {
	case Made, Replaced:
		if err != nil || !strings.Contains(after, "x "+string(typ)) || typ != Directory && !strings.Contains(after, ours.UTC().String()) {
			t.Errorf("%s, but %v: %q", got, err, after)
		}
		return
	case KeptDifferent:
		if c := problem.CodeOf(err); c != problem.TargetExists && (typ != Directory || c != problem.TargetUnsafe) {
			t.Errorf("%s with %v", got, err)
		}
	default:
		if err != nil {
			t.Errorf("%s with %v", got, err)
		}
	}
	if before != after && typ != Directory {
		t.Errorf("%s, but it was\n%q and is\n%q", got, before, after)
	}
}

// describe is the tree below root in words.
func describe(t *testing.T, root string) string {
	t.Helper()
	n, err := Open(Source{Path: "/", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	var b strings.Builder
	var list func(d *Dir)
	list = func(d *Dir) {
		names, err := d.Names()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			e, err := d.Stat(n.Name)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Complete(&e); err != nil {
				t.Fatal(err)
			}
			b.WriteString(joined(d.Path(), e.Name) + " " + string(e.Type) + " " + e.Target + " " + e.Modified.UTC().String() + "\n")
			switch e.Type {
			case Directory:
				below, err := d.OpenDir(e.Name)
				if err != nil {
					t.Fatal(err)
				}
				list(below)
			case File:
				b.WriteString(readAll(t, d, e.Name) + "\n")
			}
		}
	}
	list(n.Dir)
	return b.String()
}

// TestReplacedFilesAreNeverMissing looks while a file is replaced many times.
func TestReplacedFilesAreNeverMissing(t *testing.T) {
	root := place(t, t.TempDir(), "x")
	m := openTarget(t, root).Root()
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			b, err := os.ReadFile(filepath.Join(root, "x"))
			if err != nil || string(b) != "x" && len(b) != 100_000 {
				done <- errors.Join(err, errors.New("half a file, or none"))
				return
			}
		}
	}()
	for i := range 200 {
		at := ours.Add(time.Duration(i) * time.Hour)
		if _, _, err := makeFile(m, ourEntry("x", File, at), strings.Repeat("y", 100_000), Always); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestClosedSince: an administrator has closed a file and a directory since the
// backup. Under Never both stay as they are, and both are reported; under
// Always they are as in the backup.
func TestClosedSince(t *testing.T) {
	root := place(t, t.TempDir(), "x")
	x, d := filepath.Join(root, "x"), filepath.Join(root, "d")
	if err := errors.Join(os.Mkdir(d, 0o700), os.WriteFile(d+"/theirs", nil, 0o600), os.Chmod(x, 0o600), os.Chtimes(x, ours, ours)); err != nil {
		t.Fatal(err)
	}
	m := openTarget(t, root).Root()
	file, dir := ourEntry("x", File, ours), ourEntry("d", Directory, ours)
	file.Mode, dir.Mode = 0o644, 0o755
	_, _, err := makeFile(m, file, "x", Never)
	wantCode(t, err, problem.TargetExists)
	sub, outcome, err := m.Dir(dir, Never)
	if outcome != Same || err != nil {
		t.Fatalf("%s, %v", outcome, err)
	}
	unset, err := sub.Finish(dir)
	if err != nil || len(unset) != 1 || problem.CodeOf(unset[0].Err) != problem.TargetExists {
		t.Errorf("%v, %v", unset, err)
	}
	modes := func() string {
		a, err1 := os.Stat(x)
		b, err2 := os.Stat(d)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%o %o", a.Mode().Perm(), b.Mode().Perm())
	}
	if got := modes(); got != "600 700" {
		t.Errorf("under Never the modes became %s", got)
	}
	if outcome, _, err := makeFile(m, file, "x", Always); outcome != Replaced || err != nil {
		t.Errorf("%s, %v", outcome, err)
	}
	if sub, _, err = m.Dir(dir, Always); err == nil {
		_, err = sub.Finish(dir)
	}
	if got := modes(); got != "644 755" || err != nil {
		t.Errorf("under Always the modes are %s, %v", got, err)
	}
}

// TestUnfinished: a directory that a killed run made gets its attributes from
// the next one, under Never too.
func TestUnfinished(t *testing.T) {
	root := t.TempDir()
	dir := ourEntry("d", Directory, ours)
	dir.Mode = 0o755
	target := openTarget(t, filepath.Join(root, "a"))
	killed, _, err := target.Root().Dir(dir, Never)
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
	// Another target sees the same directory, as the next run would.
	if err := os.Rename(killed.Path(), filepath.Join(root, "d")); err != nil {
		t.Fatal(err)
	}
	target = openTarget(t, root)
	sub, outcome, err := target.Root().Dir(dir, Never)
	if outcome != Same || err != nil {
		t.Fatalf("%s, %v", outcome, err)
	}
	if unset, err := sub.Finish(dir); err != nil || len(unset) > 0 {
		t.Fatalf("%v, %v", unset, err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(root, "d"))
	if err != nil || fi.Mode().Perm() != 0o755 || !fi.ModTime().Equal(ours) {
		t.Errorf("%v, %v", fi, err)
	}
	n, err := Open(Source{Path: "/d", Root: filepath.Join(root, "d")})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if len(n.Entry.XAttrs) > 0 {
		t.Errorf("the mark is left: %v", n.Entry.XAttrs)
	}
}
