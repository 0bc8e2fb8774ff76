package tree

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
)

// TestKilled kills restores at any moment. What is visible then is complete,
// nothing is left but at most one temporary name per step under way, and a
// further run completes the tree and removes those.
func TestKilled(t *testing.T) {
	scratch.NeedRoot(t)
	for name, target := range map[string]func(*testing.T) string{
		"here":     func(t *testing.T) string { return t.TempDir() },
		"loopback": loopback,
	} {
		t.Run(name, func(t *testing.T) { testKilled(t, target(t)) })
	}
}

func testKilled(t *testing.T, to string) {
	from := t.TempDir()
	for i := range 12 {
		for j := range 25 {
			place(t, from, fmt.Sprintf("d%d/f%d", i, j))
		}
		dir := filepath.Join(from, fmt.Sprintf("d%d", i))
		if err := os.WriteFile(filepath.Join(dir, "large"), []byte(strings.Repeat("0123456789", 100_000)), 0o640); err != nil {
			t.Fatal(err)
		}
		for j := range 5 {
			if err := os.Symlink("somewhere", filepath.Join(dir, fmt.Sprintf("l%d", j))); err != nil {
				t.Fatal(err)
			}
		}
	}
	whole := timeOf(t, from, to)
	kills, before, left := 0, 0, 0
	for round := 0; kills < 12; round++ {
		if round == 100 {
			t.Fatal("too few runs were killed")
		}
		if round%4 == 0 {
			empty(t, to)
			before = 0
		} else {
			age(t, to)
		}
		p := act(t, "restore", from, to)
		time.Sleep(rand.N(whole))
		p.kill()
		if p.err != nil {
			kills++
		}
		if p.errors.Len() > 0 {
			t.Fatal(p.errors)
		}
		stale := temporaryNames(t, to)
		if len(stale) > before+1 {
			t.Errorf("one kill left %d more: %q", len(stale)-before, stale)
		}
		left += max(len(stale)-before, 0)
		before = len(stale)
		checkVisible(t, from, to)
	}
	t.Logf("%d kills left %d temporary names", kills, left)
	c := copyTreeLoosely(t, Source{Path: "/live", Root: from}, to, Always)
	for _, err := range c.problems {
		t.Error(err)
	}
	if stale := temporaryNames(t, to); len(stale) > 0 {
		t.Errorf("left after a further run: %q", stale)
	}
	if out := run(t, "rsync", "-naHAXi", "--checksum", "--delete", from+"/", to+"/"); out != "" {
		t.Errorf("rsync sees differences:\n%s", out)
	}
}

func timeOf(t *testing.T, from, to string) time.Duration {
	t.Helper()
	start := time.Now()
	p := act(t, "restore", from, to)
	if err := p.wait(time.Minute); err != nil {
		t.Fatal(err, p.errors)
	}
	return time.Since(start)
}

func empty(t *testing.T, root string) {
	t.Helper()
	list, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if err := os.RemoveAll(filepath.Join(root, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// age makes all files differ, so that they are replaced.
func age(t *testing.T, root string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "d*", "[fl]*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if err := os.Chtimes(path, older, older); err != nil {
			t.Fatal(err)
		}
	}
}

// checkVisible compares every file that can be seen with its original.
func checkVisible(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || temporaryRun(d.Name()) != "" {
			return err
		}
		rel, _ := filepath.Rel(to, path)
		got, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		want, err := os.ReadFile(filepath.Join(from, rel))
		if err == nil && string(got) != string(want) {
			t.Errorf("%s has %d bytes of %d", rel, len(got), len(want))
		}
		a, _ := os.Stat(path)
		b, _ := os.Stat(filepath.Join(from, rel))
		old := a.ModTime().Equal(older)
		if err == nil && !old && (!a.ModTime().Equal(b.ModTime()) || a.Mode() != b.Mode()) {
			t.Errorf("%s has %v and %v", rel, a.ModTime(), a.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSweepTakesOnlyOurs: names that only look alike stay, and so does
// everything while somebody else restores there.
func TestSweepTakesOnlyOurs(t *testing.T) {
	root := t.TempDir()
	ours := temporary + newRun() + "-7"
	foreign := []string{
		temporary, temporary + "x", temporary + strings.Repeat("0", 24) + "-7", ours + "x",
		temporary + newRun(), temporary + newRun() + "-", strings.TrimPrefix(ours, "."), "a" + ours,
	}
	place(t, root, append([]string{ours, "dir/" + ours, "else/" + temporary + newRun() + "-1/"}, foreign...)...)
	m := openTarget(t, root).Root()
	if _, outcome, err := m.Dir(ourEntry("dir", Directory, newer), Never); outcome != Same || err != nil {
		t.Fatal(outcome, err)
	}
	if _, _, err := m.Dir(ourEntry("else", Directory, newer), Never); err != nil {
		t.Fatal(err)
	}
	list := describe(t, root)
	if strings.Contains(list, "/"+ours+" ") {
		t.Errorf("ours is still there: %q", list)
	}
	if got := strings.Count(list, " file "); got != len(foreign) {
		t.Errorf("of %d foreign names there are %d:\n%s", len(foreign), got, list)
	}
	if len(temporaryNames(t, root)) != 1 {
		t.Error("a directory was removed")
	}
}

func TestBusyTarget(t *testing.T) {
	root := t.TempDir()
	p := act(t, "hold", "", root)
	if _, err := io.ReadFull(p.stdout, make([]byte, len("held"))); err != nil {
		t.Fatal(err, p.errors)
	}
	stale := filepath.Join(root, temporary+newRun()+"-1")
	place(t, root, filepath.Base(stale))
	_, err := OpenTarget(root)
	wantCode(t, err, problem.Busy)
	if _, err := os.Stat(stale); err != nil {
		t.Error("a restore that was refused has removed something")
	}
	p.kill()
	if err := openTarget(t, root).Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Error("what the killed one left is still there")
	}
	_, err = OpenTarget(filepath.Join(place(t, root, "file"), "file"))
	wantCode(t, err, problem.TargetExists)
}

// TestWithoutUnnamedFiles restores everything to a file system that has no
// files without names.
func TestWithoutUnnamedFiles(t *testing.T) {
	to := loopback(t)
	if fd, err := syscall.Open(to, syscall.O_RDWR|0o20200000, 0o600); err == nil {
		_ = syscall.Close(fd)
		t.Fatal("this file system has O_TMPFILE: the test is void")
	}
	m := openTarget(t, to).Root()
	e := ourEntry("aborted", File, ours)
	e.Size = 5
	f, _, err := m.File(e, Never)
	if err != nil {
		t.Fatal(err)
	}
	if len(temporaryNames(t, to)) != 1 {
		t.Error("no temporary name")
	}
	if err := f.Abort(); err != nil {
		t.Error(err)
	}
	for i, want := range []Outcome{Made, Same, KeptDifferent, Replaced} {
		content := []string{"x", "x", "longer", "longer"}[i]
		outcome, _, err := makeFile(m, ourEntry("file", File, ours), content, []Overwrite{Never, Never, Never, Always}[i])
		if outcome != want || err != nil && want != KeptDifferent {
			t.Errorf("%s, want %s: %v", outcome, want, err)
		}
	}
	if got := describe(t, to); !strings.HasPrefix(got, "/file file ") || !strings.HasSuffix(got, "\nlonger\n") || strings.Count(got, "\n") != 2 {
		t.Errorf("target holds %q", got)
	}
}
