package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
)

const bigFile = 4 * mib

// big puts so many large files into src, some in a directory below; all in one
// batch.
func (r *rig) big(n int) {
	r.Helper()
	for i := range n {
		r.random(fmt.Sprintf("src/%c/file%d", 'a'+i%3, i), bigFile)
	}
}

// aged waits until what was written is older than the granule, so that the
// next backup may reuse it.
func aged() { time.Sleep(2100 * time.Millisecond) }

// interrupted takes a backup of src, large enough, and cancels it once a
// checkpoint and some more was stored. It returns how much was read.
func (r *rig) interrupted() int64 {
	r.Helper()
	r.big(30)
	aged()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	var p repository.Progress
	go func() {
		for p.Total().ReadBytes < 20*bigFile && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel(errors.New("interrupt signal received")) // as signal.NotifyContext has it
	}()
	rep, err := r.Backup(ctx, r.open, r.options(Options{Checkpoint: time.Hour, Parallel: 2, Progress: &p}))
	r.wantCode(err, problem.Cancelled)
	r.wantStatus(rep, job.Cancelled, problem.Cancelled)
	if rep.Resumed || rep.Backup != "" {
		r.Errorf("report: %+v", rep)
	}
	if n := r.checkpoints(r.path("src")); n != 1 {
		r.Errorf("%d checkpoints", n)
	}
	return p.Total().ReadBytes
}

// A run that is cancelled is picked up again: what was stored whole is not
// read again, though all of it lies in one batch of names.
func TestResumeAfterCancel(t *testing.T) {
	r := newRig(t)
	r.some()
	first := r.backup(Options{})
	read := r.interrupted()
	if bs := r.list(); len(bs) != 1 || bs[0].ID != first.Backup {
		t.Errorf("recorded are %+v", bs)
	}
	r.sound()
	rep := r.backup(Options{})
	if !rep.Resumed {
		t.Error("does not say that it was picked up again")
	}
	// Besides the four that were in work, everything was stored.
	if total := int64(30 * bigFile); rep.Total.BytesRead > total-read+5*bigFile {
		t.Errorf("%d MiB were read before, of %d, and now %d", read/mib, total/mib, rep.Total.BytesRead/mib)
	}
	if n := r.checkpoints(r.path("src")); n != 0 {
		t.Errorf("%d checkpoints are left", n)
	}
	r.same(r.path("src"), r.restore("latest"))
	r.sound()
	if again := r.backup(Options{}); again.Resumed || again.Total.BytesRead != 0 {
		t.Errorf("the next one: %+v", again)
	}
}

// One that is killed goes on from its last checkpoint.
func TestResumeAfterKill(t *testing.T) {
	notShort(t)
	if dir := os.Getenv("BACKUP_TEST_CHILD"); dir != "" {
		r := &rig{T: t, dir: dir, repo: dir + "/repo", id: repository.Identity{Host: "host", User: "root"}}
		r.JobDir = dir + "/jobs"
		_, err := r.try(Options{Checkpoint: 50 * time.Millisecond, Parallel: 1})
		t.Fatal("was not killed:", err)
	}
	r := newRig(t)
	r.some()
	r.backup(Options{})
	r.big(60)
	aged()
	for kill := 1; kill <= 2; kill++ {
		child := exec.Command(os.Args[0], "-test.run=^TestResumeAfterKill$")
		child.Env = append(os.Environ(), "BACKUP_TEST_CHILD="+r.dir)
		r.must(child.Start())
		deadline := time.Now().Add(time.Minute)
		for r.stored() < int64(kill*20*bigFile) && time.Now().Before(deadline) {
			time.Sleep(5 * time.Millisecond)
		}
		r.must(child.Process.Kill())
		if err := child.Wait(); child.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the child: %v", err)
		}
	}
	if r.checkpoints(r.path("src")) == 0 {
		t.Fatal("no checkpoint was made")
	}
	if bs := r.list(); len(bs) != 1 {
		t.Errorf("recorded are %+v", bs)
	}
	r.sound()
	before := r.stored()
	rep := r.backup(Options{})
	if !rep.Resumed || rep.Total.BytesRead > 50*bigFile || rep.Total.FilesReused < 10 {
		t.Errorf("picked up: %v, read %d MiB, reused %d", rep.Resumed, rep.Total.BytesRead/mib, rep.Total.FilesReused)
	}
	t.Logf("of %d MiB, %d were stored by runs that were killed, %d read again", 60*bigFile/mib, before/mib, rep.Total.BytesRead/mib)
	if n := r.checkpoints(r.path("src")); n != 0 {
		t.Errorf("%d checkpoints are left", n)
	}
	r.same(r.path("src"), r.restore("latest"))
	r.sound()
	jobs, err := job.List(r.JobDir)
	r.must(err)
	died := 0
	for _, j := range jobs {
		if j.Status == job.Died {
			t.Errorf("job %s still counts as running or died", j.ID)
		}
		if j.Code == problem.JobDied {
			died++
		}
	}
	if died != 2 {
		t.Errorf("%d jobs died, want 2", died)
	}
}

// stored is how many bytes the packs of data have.
func (r *rig) stored() (n int64) {
	_ = filepath.WalkDir(r.repo, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if i, err := d.Info(); err == nil {
				n += i.Size()
			}
		}
		return nil
	})
	return n
}
