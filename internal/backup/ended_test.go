package backup

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

// A signal that comes while people are told ends that alone; one that ended the
// job does not keep them from being told.
func TestSignalWhileTelling(t *testing.T) {
	r := newRig(t)
	r.some()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	told := 0
	r.Ended = func(ctx context.Context, _ job.Header, rep *job.Report, _ func(job.Event)) {
		if told++; rep.Status == job.Cancelled {
			r.must(ctx.Err())
			return
		}
		cancel(errors.New("interrupt signal received"))
		select {
		case <-ctx.Done():
		case <-time.After(time.Minute):
			t.Error("people are told all the same")
		}
	}
	rep, err := r.Backup(ctx, r.open, r.options(Options{}))
	r.must(err)
	r.wantStatus(rep, job.Complete, "")
	rep, err = r.Backup(ctx, r.open, r.options(Options{}))
	r.wantCode(err, problem.Cancelled)
	r.wantStatus(rep, job.Cancelled, problem.Cancelled)
	if told != 2 {
		t.Errorf("told %d times", told)
	}
}

// Who closes the log of a job that died tells of it.
func TestDeadAreTold(t *testing.T) {
	r := newRig(t)
	r.some()
	l, err := job.Create(r.JobDir, job.Start{Kind: job.Backup, Version: "test", Name: "nightly"})
	r.must(err)
	path := filepath.Join(r.JobDir, l.ID()+".jsonl")
	before, err := os.ReadFile(path)
	r.must(err)
	r.must(l.Close(&job.Report{Status: job.Complete}))
	r.must(os.WriteFile(path, before, 0o600))
	if !bytes.HasSuffix(before, []byte("\n")) {
		t.Fatalf("the log begins with %q", before)
	}
	var told []string
	r.Ended = func(_ context.Context, h job.Header, rep *job.Report, _ func(job.Event)) {
		told = append(told, h.ID+" "+h.Name+" "+string(rep.Code))
	}
	rep := r.backup(Options{})
	if len(told) != 2 || told[0] != l.ID()+" nightly job-died" || told[1] != rep.Job+"  " {
		t.Errorf("told %q", told)
	}
	r.backup(Options{})
	if len(told) != 3 {
		t.Errorf("told again: %q", told)
	}
}

// What may have been recorded is not recorded once more.
func TestRecordedOnce(t *testing.T) {
	r := &run{report: &job.Report{}}
	r.step(job.StepStore)(errPlanned)
	if r.recorded() {
		t.Error("nothing is recorded yet")
	}
	r.step(job.StepRecord)(errPlanned)
	if !r.recorded() {
		t.Error("it may be recorded")
	}
}
