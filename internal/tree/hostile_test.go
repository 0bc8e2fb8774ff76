package tree

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"stillpoint/internal/problem"
)

func wantCode(t *testing.T, err error, want problem.Code) {
	t.Helper()
	if got := problem.CodeOf(err); got != want {
		t.Errorf("code %q, want %q: %v", got, want, err)
	}
}

func TestImpossibleNames(t *testing.T) {
	m := openTarget(t, t.TempDir()).Root()
	for _, name := range []string{"", ".", "..", "/", "/etc/passwd", "a/b", "../x", "a/", "nul\x00", OriginalName(`\x2e\x2e`), OriginalName(`a\x2fb`)} {
		e := ourEntry(name, File, ours)
		_, _, err := m.File(e, Always)
		wantCode(t, err, problem.TargetUnsafe)
		_, _, err = m.Dir(e, Always)
		wantCode(t, err, problem.TargetUnsafe)
		_, _, err = m.Symlink(e, Always)
		wantCode(t, err, problem.TargetUnsafe)
		e.Type = FIFO
		_, _, err = m.Special(e, Always)
		wantCode(t, err, problem.TargetUnsafe)
		_, err = m.Link(e, Always, Place{})
		wantCode(t, err, problem.TargetUnsafe)
		_, err = m.Place(name)
		wantCode(t, err, problem.TargetUnsafe)
	}
	if got := describe(t, m.Path()); got != "" {
		t.Errorf("something was made: %q", got)
	}
}

func TestHostileSizes(t *testing.T) {
	m := openTarget(t, t.TempDir()).Root()
	e := ourEntry("x", File, ours)
	e.Size = -1
	_, _, err := m.File(e, Never)
	wantCode(t, err, problem.TargetUnsafe)
	e.Size = 10
	f, _, err := m.File(e, Never)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{-1, 9, 10, 1 << 62, -1 << 63} {
		_, err := f.WriteAt([]byte("ab"), off)
		wantCode(t, err, problem.TargetUnsafe)
	}
	if err := f.Abort(); err != nil {
		t.Error(err)
	}
	_, _, err = m.Special(ourEntry("x", "door", ours), Never)
	wantCode(t, err, problem.TargetUnsafe)
}

// outside is a directory that a restore must not touch.
func outside(t *testing.T) (path string, check func()) {
	t.Helper()
	path = place(t, t.TempDir(), "precious", "dir/precious")
	see := func() string {
		out := describe(t, path)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		return fmt.Sprint(out, st.Mode, st.Uid, st.Mtim, st.Ctim)
	}
	before := see()
	return path, func() {
		t.Helper()
		if after := see(); after != before {
			t.Errorf("outside was touched:\n%q\n%q", before, after)
		}
	}
}

func TestLinksInTheTargetAreNotFollowed(t *testing.T) {
	away, check := outside(t)
	root := t.TempDir()
	for name, to := range map[string]string{"dir": away, "file": filepath.Join(away, "precious"), "up": "..", "self": "."} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	m := openTarget(t, root).Root()
	for _, o := range []Overwrite{Never, Newer} {
		for _, name := range []string{"dir", "up", "self"} {
			below, outcome, err := m.Dir(ourEntry(name, Directory, newer.AddDate(100, 0, 0)), o)
			if below != nil || outcome != KeptDifferent {
				t.Errorf("%s was entered: %s", name, outcome)
			}
			wantCode(t, err, problem.TargetUnsafe)
		}
	}
	for _, name := range []string{"dir", "file"} {
		if outcome, _, err := makeFile(m, ourEntry(name, File, ours), "x", Always); outcome != Replaced || err != nil {
			t.Errorf("%s: %s, %v", name, outcome, err)
		}
	}
	for _, name := range []string{"up", "self"} {
		below, outcome, err := m.Dir(ourEntry(name, Directory, ours), Always)
		if outcome != Replaced || err != nil {
			t.Fatalf("%s: %s, %v", name, outcome, err)
		}
		if _, _, err := makeFile(below, ourEntry("x", File, ours), "x", Never); err != nil {
			t.Error(err)
		}
	}
	check()
	if got := describe(t, root); strings.Contains(got, string(Symlink)) || strings.Count(got, "/x file") != 2 {
		t.Errorf("target holds %q", got)
	}
}

// TestDirectoriesAreNotEnteredByLinks is what TestSwappedDirectories meets by
// chance only: a link that appears after the last look.
func TestDirectoriesAreNotEnteredByLinks(t *testing.T) {
	root := place(t, t.TempDir(), "dir/")
	pool := newDescriptors()
	defer pool.close()
	top, _, err := pool.top(root)
	if err != nil {
		t.Fatal(err)
	}
	dir, _, err := top.child("dir")
	if err != nil {
		t.Fatal(err)
	}
	dir.rest()
	if err := os.Rename(filepath.Join(root, "dir"), filepath.Join(root, "moved")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("moved", filepath.Join(root, "dir")); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.take(); err == nil {
		t.Error("opened again through a link")
		dir.give()
	}
	if _, _, err := top.child("dir"); err == nil {
		t.Error("opened through a link")
	}
}

// TestSwappedDirectories restores while somebody exchanges the very directory
// that is entered, or the one above, for a link to the outside. With hardly a
// descriptor kept, every step enters directories again.
func TestSwappedDirectories(t *testing.T) {
	away, check := outside(t)
	from := t.TempDir()
	for i := range 6 {
		for j := range 6 {
			place(t, from, fmt.Sprintf("dir%d/dir/f%d", i, j), fmt.Sprintf("dir%d/dir/precious", i), fmt.Sprintf("dir%d/dir/dir%d/", i, j))
		}
	}
	codes := map[problem.Code]int{}
	for round := range 20 {
		root := t.TempDir()
		var s swapper
		stop := s.start(away)
		c := &copier{overwrite: []Overwrite{Never, Always}[round%2], around: s.aim, budget: 1}
		err := c.tree(Source{Path: "/live", Root: from}, root)
		stop()
		for _, err := range append(c.problems, err) {
			codes[problem.CodeOf(err)]++
			switch problem.CodeOf(err) {
			case "", problem.TargetUnsafe:
			case problem.TargetLost, problem.TargetExists: // the name was gone, or taken, for the moment
			default:
				t.Error(err)
			}
		}
		check()
	}
	if codes[problem.TargetUnsafe] < 20 {
		t.Error("too few exchanges met the restore")
	}
	t.Log(codes)
}

// A swapper exchanges what it is aimed at, again and again.
type swapper struct {
	path  atomic.Pointer[string]
	swaps atomic.Int64
}

func (s *swapper) aim(path string) {
	if strings.HasPrefix(filepath.Base(path), "f") || s.swaps.Load()%3 == 0 {
		path = filepath.Dir(path)
	}
	s.path.Store(&path)
	for n := s.swaps.Load(); s.swaps.Load() < n+1; {
		runtime.Gosched()
	}
}

func (s *swapper) start(outside string) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			default:
			}
			s.swaps.Add(1)
			p := s.path.Load()
			if p == nil {
				continue
			}
			aside := *p + ".aside"
			if syscall.Mkdir(*p, 0o755) == nil {
				runtime.Gosched()
			}
			_ = syscall.Rename(*p, aside)
			_ = syscall.Symlink(outside, *p)
			runtime.Gosched()
			_ = syscall.Unlink(*p)
			_ = syscall.Rename(aside, *p)
		}
	}()
	return func() { close(end); <-done }
}

// TestReplacedDirectoryIsNoticed: a directory whose descriptor was given back
// is not taken for another one of the same name.
func TestReplacedDirectoryIsNoticed(t *testing.T) {
	root := t.TempDir()
	m := openTarget(t, root).Root()
	d, _, err := m.Dir(ourEntry("d", Directory, ours), Never)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(root, "d"), filepath.Join(root, "was")); err != nil {
		t.Fatal(err)
	}
	place(t, root, "d/")
	_, _, err = makeFile(d, ourEntry("x", File, ours), "x", Never)
	wantCode(t, err, problem.TargetUnsafe)

	n, err := Open(Source{Path: "/live", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	read, err := n.Dir.OpenDir("was")
	if err != nil {
		t.Fatal(err)
	}
	if err := read.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(root, "was"), filepath.Join(root, "gone")); err != nil {
		t.Fatal(err)
	}
	place(t, root, "was/")
	_, err = read.Names()
	wantCode(t, err, problem.FileVanished)
}
