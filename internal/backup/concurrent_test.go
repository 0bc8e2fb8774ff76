package backup

import (
	"context"
	"os"
	"sync"
	"testing"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
)

// Two backups to one repository at once, of the same and of other paths: all
// are complete and come back.
func TestBackupsAtOnce(t *testing.T) {
	r := newRig(t)
	r.big(10)
	r.some()
	for i := range 10 {
		r.random("other/file"+string(rune('a'+i)), mib)
	}
	paths := [][]string{{r.path("src")}, {r.path("other")}, {r.path("src")}, {r.path("src"), r.path("other")}}
	reps := make([]*job.Report, len(paths))
	var wg sync.WaitGroup
	for i, p := range paths {
		wg.Go(func() {
			var err error
			if reps[i], err = r.Backup(t.Context(), r.open, r.options(Options{Paths: p, Checkpoint: 50 * 1e6})); err != nil {
				t.Errorf("backup of %v: %v", p, err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	bs := r.list()
	if len(bs) != len(paths) {
		t.Errorf("%d backups are listed, want %d", len(bs), len(paths))
	}
	for i, rep := range reps {
		r.wantStatus(rep, job.Complete, "")
		to := r.path("to-" + rep.Backup)
		got, err := r.restoreTo(rep.Backup, to)
		r.must(err)
		r.wantStatus(got, job.Complete, "")
		for _, p := range paths[i] {
			r.same(p, to+p)
		}
	}
	for _, p := range []string{"src", "other"} {
		if n := r.checkpoints(r.path(p)); n > 0 {
			t.Errorf("%d checkpoints of %s are left", n, p)
		}
	}
	r.sound()
}

// Two restores into one folder at once: the second is refused.
func TestRestoresAtOnce(t *testing.T) {
	r := newRig(t)
	r.big(20)
	r.backup(Options{})
	to := r.path("to")
	r.must(os.Mkdir(to, 0o755))
	// Opened before, so that they begin at the same time.
	repos := make(chan *repository.Repository, 2)
	for range cap(repos) {
		repo, err := r.open(t.Context())
		r.must(err)
		repos <- repo
	}
	open := func(context.Context) (*repository.Repository, error) { return <-repos, nil }
	errs := make(chan error, cap(repos))
	for range cap(errs) {
		go func() {
			_, err := r.Restore(t.Context(), open, RestoreOptions{Choose: r.choose("latest"), To: to, Progress: &RestoreProgress{}})
			errs <- err
		}()
	}
	one, two := <-errs, <-errs
	if one == nil {
		one, two = two, one
	}
	r.wantCode(one, problem.Busy)
	r.must(two)
	r.same(r.path("src"), to+r.path("src"))
}
