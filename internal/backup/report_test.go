package backup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/volume"
)

// A job that is cancelled reports how far it came.
func TestCancelledCounts(t *testing.T) {
	r := newRig(t)
	read := r.interrupted()
	jobs, err := job.List(r.JobDir)
	r.must(err)
	j, err := job.Load(r.JobDir, jobs[0].ID)
	r.must(err)
	total := j.Report.Total
	if total.BytesRead < read/2 || total.Files < 15 || total.Files >= 30 || total.BytesStored < total.BytesRead/2 {
		t.Errorf("backup: read were %d MiB; the log says %+v", read/mib, total)
	}
	if len(j.Report.Volumes) != 1 || j.Report.Volumes[0].Counts != total {
		t.Errorf("backup: volumes %+v", j.Report.Volumes)
	}

	r.backup(Options{})
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	p := &RestoreProgress{}
	go func() {
		for p.Wrote.Load() < 10*bigFile && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel(errors.New("interrupt signal received"))
	}()
	to := r.path("to")
	rep, err := r.Restore(ctx, r.open, RestoreOptions{Choose: r.choose("latest"), To: to, Progress: p})
	r.wantCode(err, problem.Cancelled)
	r.wantStatus(rep, job.Cancelled, problem.Cancelled)
	files := int64(0)
	_ = filepath.WalkDir(to, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files++
		}
		return nil
	})
	if rep.Total.Files != files || files == 0 || files >= 30 || rep.Total.BytesWritten < files*bigFile || rep.Total.Bytes < files*bigFile {
		t.Errorf("restore: %d files are there; the report says %+v", files, rep.Total)
	}
	// And goes on from there.
	rep, err = r.restoreTo("latest", to)
	r.must(err)
	r.wantStatus(rep, job.Complete, "")
	if rep.Total.FilesReused != files || rep.Total.Files != 30 {
		t.Errorf("restored again: %+v, %d were there", rep.Total, files)
	}
}

// An exclude pattern that fits nothing is noted, as it was given.
func TestUnusedExcludes(t *testing.T) {
	notShort(t)
	r := newRig(t)
	r.write("src/dir/a.tmp", "x")
	r.write("src/dir/b.bak", "x")
	r.must(os.Symlink("dir", r.path("src/way")))
	patterns := []string{"*.tmp", "*.tmp", "a.tmp", "none", "dir/none/", r.path("src/way/b.bak"), r.path("src/way/c.bak"), "\xff*"}
	rep := r.backup(Options{Exclude: patterns})
	want := []string{"none", "dir/none/", r.path("src/way/c.bak"), "\xff*"}
	if !slices.Equal(rep.UnusedExcludes, want) {
		t.Errorf("unused are %q, want %q", rep.UnusedExcludes, want)
	}
	if j, err := job.Load(r.JobDir, rep.Job); err != nil || !slices.Equal(j.Report.UnusedExcludes, want) {
		t.Errorf("in the log %+v, %v", j.Report, err)
	}
	// What was not looked for to the end is not missing.
	if rep, err := r.try(Options{Paths: []string{r.path("none")}, Exclude: patterns}); err == nil || len(rep.UnusedExcludes) > 0 {
		t.Errorf("failed: %q, %v", rep.UnusedExcludes, err)
	}
}

// A littered host has snapshots that dead processes left.
type littered struct {
	snapshot.Provider
	left []snapshot.Snapshot
	err  error
}

func (l *littered) Leftovers(context.Context) ([]snapshot.Snapshot, error) { return l.left, l.err }

// A leftSnapshot can be deleted unless err says why not.
type leftSnapshot struct {
	snapshot.Snapshot
	host *littered
	id   string
	err  error
}

func (s *leftSnapshot) ID() string        { return s.id }
func (s *leftSnapshot) Volume() volume.ID { return "volume" }
func (s *leftSnapshot) Release(context.Context) error {
	if s.err == nil {
		s.host.left = slices.DeleteFunc(s.host.left, func(o snapshot.Snapshot) bool { return o == s })
	}
	return s.err
}

// What clean removes is in its log, with the intent; and so is that it found
// nothing, or could not remove something.
func TestCleanIsAJob(t *testing.T) {
	host := &littered{Provider: fake.New(t.TempDir(), fake.Options{})}
	r := newRig(t, host)
	clean := func(status job.Status, removed ...string) []job.Event {
		t.Helper()
		dry, err := r.Leftovers(t.Context())
		r.must(err)
		found, err := r.Clean(t.Context())
		r.must(err)
		if len(dry) != len(found) {
			t.Errorf("found %+v, before %+v", found, dry)
		}
		var gone []string
		for _, l := range found {
			if l.Removed {
				gone = append(gone, l.ID)
			}
		}
		jobs, err := job.List(r.JobDir)
		r.must(err)
		j, err := job.Load(r.JobDir, jobs[0].ID)
		r.must(err)
		if j.Kind != job.Clean || j.Status != status || !slices.Equal(gone, removed) {
			t.Errorf("removed %q, want %q; the last job is %+v", gone, removed, j.Summary)
		}
		return j.Events
	}
	if es := clean(job.Complete); len(es) != 0 {
		t.Errorf("nothing: %+v", es)
	}
	host.left = []snapshot.Snapshot{&leftSnapshot{host: host, id: "one"}}
	es := clean(job.Complete, "one")
	if len(es) != 2 || es[0].Intent != "one" || es[1].Done != "one" || es[1].Volume != "volume" || es[1].Text != "snapshot one deleted" {
		t.Errorf("one: %+v", es)
	}
	host.left = []snapshot.Snapshot{&leftSnapshot{host: host, id: "two", err: errors.Join(errPlanned, errPlanned)}}
	host.err = errors.Join(problem.Newf(problem.LeftoverForeign, "alike", "is not ours"))
	es = clean(job.CompleteWithExceptions)
	if len(es) != 3 || es[1].Code != problem.ReleaseFailed || es[1].Done != "" || es[2].Code != problem.LeftoverForeign {
		t.Errorf("two: %+v", es)
	}
	if jobs, err := job.List(r.JobDir); err != nil || len(jobs) != 3 || jobs[0].Exceptions != 2 {
		t.Errorf("jobs are %+v, %v", jobs, err)
	}
}

// Directories that lead to what is restored are finished also when that fails,
// and those that a killed restore left behind by the next one.
func TestLeadingDirectories(t *testing.T) {
	notShort(t)
	r := newRig(t)
	r.write("src/a/b/c/file", "x")
	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, d := range []string{"src/a/b", "src/a", "src"} {
		r.must(os.Chmod(r.path(d), 0o750))
		r.must(os.Chtimes(r.path(d), at, at))
	}
	r.backup(Options{})
	look := func(to string) {
		t.Helper()
		for _, d := range []string{"src/a", "src"} {
			fi, err := os.Stat(to + r.path(d))
			r.must(err)
			if fi.Mode().Perm() != 0o750 || !fi.ModTime().Equal(at) {
				t.Errorf("%s: %s is left with %v, %v", to, d, fi.Mode(), fi.ModTime())
			}
			if n, _ := syscall.Getxattr(to+r.path(d), "trusted.stillpoint.restoring", nil); n >= 0 {
				t.Errorf("%s: %s has the mark still", to, d)
			}
		}
	}
	to := r.path("fails")
	rep, err := r.Restore(t.Context(), r.open, RestoreOptions{To: to, Progress: &RestoreProgress{}, Choose: func(ctx context.Context, repo *repository.Repository) (repository.Backup, []repository.Selected, error) {
		b, sel, err := r.choose("latest:"+r.path("src/a/b/c"))(ctx, repo)
		// The way there leads over what is not in the backup.
		sel[0].Path = r.path("src/a/none/c")
		return b, sel, err
	}})
	r.wantCode(err, problem.NotInBackup)
	r.wantStatus(rep, job.Failed, problem.NotInBackup)
	look(to)

	to = r.path("killed")
	r.must(os.MkdirAll(to+r.path("src/a"), 0o755))
	for _, d := range []string{"src", "src/a"} {
		r.mark(to+r.path(d), 0o700)
	}
	rep, err = r.restoreTo("latest:"+r.path("src/a/b/c"), to)
	r.must(err)
	r.wantStatus(rep, job.Complete, "")
	look(to)

	// What was there before stays as it was.
	to = r.path("there")
	r.must(os.MkdirAll(to+r.path("src/a"), 0o711))
	rep, err = r.restoreTo("latest:"+r.path("src/a/b/c"), to)
	r.must(err)
	r.wantStatus(rep, job.Complete, "")
	if fi, err := os.Stat(to + r.path("src")); err != nil || fi.Mode().Perm() != 0o711 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}
