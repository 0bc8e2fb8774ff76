package backup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot/fake"
)

// nest makes a volume with another one mounted in it, in which a directory of
// the first one shows again; and a third one beside.
func nest(t *testing.T, r *rig) (outer, beside string) {
	a, b, c := scratch.New(t, "ext4", 64*scratch.MiB), scratch.New(t, "ext4", 64*scratch.MiB), scratch.New(t, "ext4", 64*scratch.MiB)
	inner := filepath.Join(a.Dir, "in/inner")
	r.must(os.MkdirAll(inner, 0o755))
	r.must(os.MkdirAll(filepath.Join(a.Dir, "again"), 0o755))
	scratch.Run(t, "mount", b.Devices[0], inner)
	t.Cleanup(func() { scratch.Run(t, "umount", inner) })
	deep := filepath.Join(inner, "deep")
	r.must(os.Mkdir(deep, 0o755))
	scratch.Run(t, "mount", "--bind", filepath.Join(a.Dir, "again"), deep)
	t.Cleanup(func() { scratch.Run(t, "umount", deep) })
	for i, name := range []string{a.Dir + "/file", a.Dir + "/in/zz", inner + "/file", deep + "/file", c.Dir + "/file"} {
		r.must(os.WriteFile(name, fmt.Append(nil, "content ", i), 0o644))
	}
	return a.Dir, c.Dir
}

// One volume after the other is captured, stored and released; what comes back
// is the same as of a backup of all at once.
func TestOneAtATime(t *testing.T) {
	tr := newTrial(t, fake.Options{})
	outer, beside := nest(t, tr.rig)
	paths := []string{outer, beside}
	tr.backup(Options{Paths: paths, Provider: fake.Name})
	want := tr.restored("latest", paths)
	tr.called = nil
	rep, err := tr.try(Options{Paths: paths, Provider: fake.Name, OneAtATime: true})
	tr.must(err)
	if rep.Status != job.Complete || rep.OneInstant || rep.Skew == 0 || len(rep.Volumes) < 3 {
		t.Errorf("%+v", rep)
	}
	if got := tr.restored("latest", paths); got != want {
		t.Errorf("restored is\n%s\nwant\n%s", got, want)
	}
	held := 0
	for _, step := range tr.called {
		switch step {
		case "prepare":
			if held++; held > 1 {
				t.Fatalf("a second volume is taken before the first is released: %q", tr.called)
			}
		case "release":
			held--
		}
	}
	tr.nothingLeft()
}

// What an earlier backup holds of each piece is found, however that was made.
func TestOneAtATimeAgain(t *testing.T) {
	tr := newTrial(t, fake.Options{})
	outer, beside := nest(t, tr.rig)
	tr.Now = func() time.Time { return time.Now().Add(time.Hour) } // files are old enough
	for i, one := range []bool{false, true, true, false} {
		rep, err := tr.try(Options{Paths: []string{outer, beside}, Provider: None, OneAtATime: one})
		tr.must(err)
		if rep.Total.Files != 6 || i > 0 && rep.Total.FilesReused != 6 {
			t.Errorf("backup %d: %d of %d files are known", i, rep.Total.FilesReused, rep.Total.Files)
		}
	}
}

// restored restores a backup and lists what came.
func (tr *trial) restored(spec string, paths []string) string {
	tr.Helper()
	to, err := os.MkdirTemp(tr.dir, "out-")
	tr.must(err)
	_, err = tr.restoreTo(spec, to)
	tr.must(err)
	var lines []string
	for _, p := range paths {
		tr.must(filepath.WalkDir(filepath.Join(to, p), func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			line := strings.TrimPrefix(path, to)
			if d.Type().IsRegular() {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				line += " " + string(b)
			}
			lines = append(lines, line)
			return nil
		}))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// A failure in the second volume costs the backup, and nothing stays.
func TestOneAtATimeFails(t *testing.T) {
	for _, step := range []string{"prepare", "hold", "commit"} {
		tr := newTrial(t, fake.Options{})
		outer, beside := nest(t, tr.rig)
		times := 0
		tr.also = func(s string) error {
			if s == step {
				if times++; times == 2 {
					return errPlanned
				}
			}
			return nil
		}
		_, err := tr.try(Options{Paths: []string{outer, beside}, Provider: fake.Name, OneAtATime: true})
		tr.wantCode(err, problem.SnapshotFailed)
		tr.nothingLeft()
		tr.backups(0)
	}
}

// Without a quiet time a capture fails, goes on, or is one of each volume.
func TestQuietTime(t *testing.T) {
	for _, tt := range []struct {
		otherwise Otherwise
		code      problem.Code
		prepares  int
	}{{ElseFail, problem.NoQuietTime, 1}, {ElseContinue, "", 1}, {ElseOneAtATime, "", 3}} {
		tr := newTrial(t, fake.Options{})
		a, b := scratch.New(t, "ext4", 64*scratch.MiB), scratch.New(t, "ext4", 64*scratch.MiB)
		stop := syncing(t, a.Dir)
		rep, err := tr.try(Options{Paths: []string{a.Dir, b.Dir}, Provider: fake.Name, Quiet: Quiet{For: 2 * time.Second, Timeout: 3 * time.Second, Else: tt.otherwise}})
		stop()
		prepares := 0
		for _, step := range tr.called {
			if step == "prepare" {
				prepares++
			}
		}
		if problem.CodeOf(err) != tt.code || prepares != tt.prepares {
			t.Errorf("%s: %v after %d captures: %q\n%s", tt.otherwise, err, prepares, tr.called, tr.log(rep))
		}
		if tt.otherwise == ElseOneAtATime && rep.OneInstant {
			t.Error("one volume at a time is said to be one instant")
		}
		tr.nothingLeft()
	}
}

// syncing writes to a volume until it is stopped.
func syncing(t *testing.T, dir string) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-quit:
				return
			default:
				if f, err := os.OpenFile(filepath.Join(dir, "busy"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600); err == nil {
					_, _ = f.WriteString("x")
					_ = f.Sync()
					f.Close()
				}
			}
		}
	}()
	return func() { close(quit); <-ended }
}
