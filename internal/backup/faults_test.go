package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/volume"
)

// A trial is a run with the fake provider, in which one step goes wrong.
type trial struct {
	*rig
	fake  *fake.Provider
	store string // of the fake

	mu     sync.Mutex
	called []string
	at     string // the step that goes wrong
	times  int    // how often
	how    func(ctx context.Context) error
	also   func(step string) error // may go wrong, too
	cancel context.CancelCauseFunc
}

func newTrial(t *testing.T, o fake.Options) *trial {
	t.Helper()
	tr := &trial{store: t.TempDir()}
	o.Step = tr.step
	tr.fake = fake.New(tr.store, o)
	tr.rig = newRig(t, tr.fake)
	tr.some()
	return tr
}

func (tr *trial) step(ctx context.Context, step string) error {
	tr.mu.Lock()
	tr.called = append(tr.called, step)
	wrong := step == tr.at && tr.times > 0
	if wrong {
		tr.times--
	}
	tr.mu.Unlock()
	switch {
	case wrong:
		return tr.how(ctx)
	case tr.also != nil:
		return tr.also(step)
	}
	return nil
}

var errPlanned = errors.New("planned")

func (tr *trial) fail(context.Context) error { return errPlanned }

func (tr *trial) hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (tr *trial) interrupt(context.Context) error {
	tr.cancel(errors.New("SIGTERM"))
	return nil
}

// run takes a backup, which is interrupted after limit.
func (tr *trial) run(o Options, limit time.Duration) (*job.Report, error) {
	tr.Helper()
	ctx, cancel := context.WithCancelCause(tr.Context())
	defer cancel(nil)
	tr.cancel = cancel
	if limit > 0 {
		defer time.AfterFunc(limit, func() { cancel(errors.New("SIGINT")) }).Stop()
	}
	o = tr.options(o)
	o.Provider = fake.Name
	return tr.Backup(ctx, tr.open, o)
}

// nothingLeft fails where the fake holds something or its store is not empty.
func (tr *trial) nothingLeft() {
	tr.Helper()
	if h := tr.fake.Held(); len(h) > 0 {
		tr.Errorf("held: %q", h)
	}
	es, err := os.ReadDir(tr.store)
	tr.must(err)
	if len(es) > 0 {
		tr.Errorf("left: %v", es)
	}
}

// backups fails unless there are so many backups, and no checkpoint.
func (tr *trial) backups(n int) {
	tr.Helper()
	if bs := tr.list(); len(bs) != n {
		tr.Errorf("%d backups are recorded, want %d", len(bs), n)
	}
	if c := tr.checkpoints(tr.path("src")); c > 0 {
		tr.Errorf("%d checkpoints are left", c)
	}
}

func TestEveryStepGoesWrong(t *testing.T) {
	failed, cancelled, excepted := job.Failed, job.Cancelled, job.CompleteWithExceptions
	for i, c := range []struct {
		step   string
		times  int
		how    func(*trial) func(context.Context) error
		limit  time.Duration
		status job.Status
		code   problem.Code
		stays  bool // the fake holds something for ever
	}{
		{"prepare", 1, (*trial).failing, 0, failed, problem.SnapshotFailed, false},
		{"prepare", 1, (*trial).hanging, time.Second, cancelled, problem.Cancelled, false},
		{"prepare", 1, (*trial).interrupting, 0, cancelled, problem.Cancelled, false},
		{"hold", 1, (*trial).failing, 0, failed, problem.SnapshotFailed, false},
		{"hold", 1, (*trial).hanging, 0, failed, problem.SnapshotFailed, false},
		{"hold", 1, (*trial).interrupting, 0, cancelled, problem.Cancelled, false},
		{"commit", 1, (*trial).failing, 0, failed, problem.SnapshotFailed, false},
		{"commit", 1, (*trial).hanging, 0, failed, problem.SnapshotFailed, false},
		{"commit", 1, (*trial).hanging, 500 * time.Millisecond, cancelled, problem.Cancelled, false},
		{"commit", 1, (*trial).interrupting, 0, cancelled, problem.Cancelled, false},
		{"resume", 1, (*trial).failing, 0, job.Complete, "", false},
		{"resume", 1, (*trial).hanging, 0, job.Complete, "", false},
		{"resume", 9, (*trial).failing, 0, failed, problem.SnapshotFailed, true},
		{"resume", 1, (*trial).interrupting, 0, cancelled, problem.Cancelled, false},
		{"release", 1, (*trial).failing, 0, excepted, problem.ReleaseFailed, true},
		{"release", 1, (*trial).hanging, 0, excepted, problem.ReleaseFailed, true},
		{"release", 1, (*trial).interrupting, 0, job.Complete, "", false},
		{"leftovers", 1, (*trial).interrupting, 0, cancelled, problem.Cancelled, false},
		{"check", 1, (*trial).interrupting, 0, cancelled, problem.Cancelled, false},
	} {
		if testing.Short() && i%4 != 0 {
			continue // enough for the race detector
		}
		tr := newTrial(t, fake.Options{})
		tr.at, tr.times, tr.how = c.step, c.times, c.how(tr)
		began := time.Now()
		rep, err := tr.run(Options{}, c.limit)
		name := c.step + " " + string(c.status)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s took %s", name, took)
		}
		if (err != nil) != (c.status == failed || c.status == cancelled) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			tr.wantCode(err, c.code)
		}
		tr.wantStatus(rep, c.status, c.code)
		recorded := map[bool]int{true: 1}[c.status == job.Complete || c.status == excepted]
		tr.backups(recorded)
		switch {
		case !c.stays:
			tr.nothingLeft()
		case c.step == "resume":
			if h := tr.fake.Held(); len(h) != 1 || !strings.HasPrefix(h[0], "hold ") {
				t.Errorf("%s: held are %q", name, h)
			}
		}
		if recorded == 1 {
			tr.same(tr.path("src"), tr.restore("latest"))
		}
		if t.Failed() {
			t.Fatalf("in %s, %d times, %v", name, c.times, tr.called)
		}
	}
}

func (tr *trial) failing() func(context.Context) error      { return tr.fail }
func (tr *trial) hanging() func(context.Context) error      { return tr.hang }
func (tr *trial) interrupting() func(context.Context) error { return tr.interrupt }

// What is undone cannot be cancelled: its own failure is named beside what
// went wrong first.
func TestAbortGoesWrong(t *testing.T) {
	for _, how := range []func(*trial) func(context.Context) error{(*trial).failing, (*trial).hanging} {
		tr := newTrial(t, fake.Options{})
		tr.at, tr.times, tr.how = "abort", 1, how(tr)
		tr.also = func(step string) error {
			if step == "commit" {
				return errPlanned
			}
			return nil
		}
		rep, err := tr.run(Options{}, 0)
		tr.wantCode(err, problem.SnapshotFailed)
		tr.wantStatus(rep, job.Failed, problem.SnapshotFailed)
		if !slices.ContainsFunc(rep.Exceptions, func(x job.Exceptions) bool { return x.Code == problem.ReleaseFailed }) {
			t.Errorf("exceptions: %v", rep.Exceptions)
		}
		tr.backups(0)
	}
}

// What one provider has taken is released when the next one fails, and no
// provider keeps another one's writes suspended.
func TestSecondProviderGoesWrong(t *testing.T) {
	v := scratch.New(t, "ext4", 64*scratch.MiB)
	other, _ := scratch.Find(t, v.Dir)
	for _, step := range []string{"prepare", "hold", "commit", "resume"} {
		tr := newTrial(t, fake.Options{Accept: func(v volume.Volume) error {
			if v.ID == other.ID {
				return problem.Newf(problem.NoProvider, "", "is the other's")
			}
			return nil
		}})
		var hung atomic.Bool // it no longer hangs
		second := fake.New(t.TempDir(), fake.Options{Step: func(ctx context.Context, s string) error {
			switch {
			case s == "resume" && step != "prepare": // hangs in any case: the first must not wait for it
				defer hung.Store(true)
				return tr.hang(ctx)
			case s == step:
				return errPlanned
			}
			return nil
		}})
		tr.Providers = append(tr.Providers, second)
		waited := false
		tr.also = func(s string) error {
			if s == "resume" {
				waited = hung.Load()
			}
			return nil
		}
		rep, err := tr.Backup(t.Context(), tr.open, Options{Paths: []string{tr.path("src"), v.Dir}, Provider: Auto})
		tr.wantCode(err, problem.SnapshotFailed)
		tr.wantStatus(rep, job.Failed, problem.SnapshotFailed)
		if h := tr.fake.Held(); len(h) > 0 {
			t.Errorf("%s: the first holds %q", step, h)
		}
		if waited {
			t.Errorf("%s: the first resumed after the second, which hangs", step)
		}
		tr.backups(0)
	}
}

// A snapshot that is lost after the last byte was read costs the backup.
func TestSnapshotLostAfterReading(t *testing.T) {
	for name, lost := range map[string]struct {
		err  error
		code problem.Code
	}{
		"without a code": {errPlanned, problem.SnapshotLost},
		"with a code":    {problem.Newf(problem.SnapshotFull, "", "no room"), problem.SnapshotFull},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTrial(t, fake.Options{})
			v, _ := scratch.Find(t, tr.path("src"))
			tr.Watch = func(e job.Event) {
				if e.Step == job.StepCapture && e.Volume != "" {
					tr.fake.Lose(v.ID, lost.err)
				}
			}
			rep, err := tr.run(Options{}, 0)
			tr.wantCode(err, lost.code)
			tr.wantStatus(rep, job.Failed, lost.code)
			if rep.Total.Files != 21 || rep.Backup != "" { // how far it came, and no backup
				t.Errorf("the report has %+v, backup %q", rep.Total, rep.Backup)
			}
			tr.backups(0)
			tr.nothingLeft()
		})
	}
}

// Neither do its checkpoints stay: what they hold came from the same snapshot.
func TestSnapshotLostAfterCheckpoint(t *testing.T) {
	tr := newTrial(t, fake.Options{})
	tr.write("src/zz/left-out", "x")
	v, _ := scratch.Find(t, tr.path("src"))
	seen := 0
	tr.Watch = func(e job.Event) { // holds up the storing
		if e.Step == job.StepStore && e.Path == tr.path("src/zz/left-out") {
			for end := time.Now().Add(time.Minute); seen == 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				seen = tr.checkpoints(tr.path("src"))
			}
			tr.fake.Lose(v.ID, errPlanned)
		}
	}
	rep, err := tr.run(Options{Checkpoint: 100 * time.Millisecond, Exclude: []string{"left-out"}}, 0)
	if seen != 1 {
		t.Fatalf("%d checkpoints were seen", seen)
	}
	tr.wantCode(err, problem.SnapshotLost)
	tr.wantStatus(rep, job.Failed, problem.SnapshotLost)
	tr.backups(0)
	tr.nothingLeft()
}

// Who reads a snapshot that is given up ends at once, whatever he waits for, and closes
// what he has open.
func TestSnapshotGivenUp(t *testing.T) {
	tr := newTrial(t, fake.Options{})
	v := fake.Volume(tr.path("src"))
	pending, err := tr.fake.Prepare(t.Context(), "givenup", []snapshot.Target{{Volume: v, Paths: []string{"."}}})
	tr.must(err)
	snaps, err := pending.Commit(t.Context())
	tr.must(err)
	c := &capture{snaps: map[volume.ID]snapshot.Snapshot{v.ID: snaps[0]}}
	tr.must(c.while(t.Context(), func(ctx context.Context) error { return ctx.Err() }))
	begun := make(chan struct{})
	go func() {
		<-begun
		tr.fake.GiveUp(v.ID, problem.Newf(problem.PoolFull, "", "planned"))
	}()
	tr.wantCode(c.while(t.Context(), func(ctx context.Context) error {
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	}), problem.PoolFull)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.while(cancelled, func(ctx context.Context) error { return ctx.Err() }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled by somebody else: %v", err)
	}
	tr.must(snaps[0].Release(t.Context()))

	for _, o := range []Options{{}, {OneAtATime: true}} {
		tr := newTrial(t, fake.Options{})
		tr.write("src/zz/left-out", "x")
		v, _ := scratch.Find(t, tr.path("src"))
		tr.Watch = func(e job.Event) {
			if e.Step == job.StepStore && e.Path == tr.path("src/zz/left-out") {
				tr.fake.GiveUp(v.ID, problem.Newf(problem.PoolFull, "", "planned"))
			}
		}
		o.Exclude = []string{"left-out"}
		rep, err := tr.run(o, 0)
		tr.wantCode(err, problem.PoolFull)
		tr.wantStatus(rep, job.Failed, problem.PoolFull)
		tr.backups(0)
		tr.nothingLeft()
	}
}

// One instant is demanded, and two would be taken: nothing is captured.
func TestNotOneInstant(t *testing.T) {
	tr := newTrial(t, fake.Options{Separate: true})
	v := scratch.New(t, "ext4", 64*scratch.MiB)
	tr.must(os.WriteFile(v.Dir+"/file", []byte("x"), 0o644))
	paths := []string{tr.path("src"), v.Dir}
	rep, err := tr.run(Options{Paths: paths, OneInstant: true}, 0)
	tr.wantCode(err, problem.NotOneInstant)
	tr.wantStatus(rep, job.Failed, problem.NotOneInstant)
	if slices.Contains(tr.called, "hold") || slices.Contains(tr.called, "commit") {
		t.Errorf("called: %v", tr.called)
	}
	tr.backups(0)
	tr.nothingLeft()

	rep, err = tr.run(Options{Paths: paths}, 0)
	tr.must(err)
	tr.wantStatus(rep, job.Complete, "")
	if rep.OneInstant || rep.Skew <= 0 || len(rep.Volumes) != 2 || !rep.Volumes[0].OneInstant {
		t.Errorf("report: %+v", rep)
	}
	if b := tr.list()[0]; b.Skew <= 0 || b.Provider != fake.Name || b.Level != string(job.Crash) {
		t.Errorf("backup: %+v", b)
	}
	tr.nothingLeft()
}

// The job log is lost: before anything is touched, before a snapshot, before
// the backup is recorded. Whatever was made is gone.
func TestStateLost(t *testing.T) {
	notShort(t)
	fill := func(dir string) {
		f, err := os.Create(dir + "/filler")
		if err == nil {
			for b := make([]byte, 100); err == nil; {
				_, err = f.Write(b)
			}
			f.Close()
		}
	}
	for name, c := range map[string]struct {
		after  string // the step of the provider after which the folder is full
		opened bool   // the repository was
		called string // the last step of the provider
	}{
		"from the start":       {"", false, ""},
		"while it is planned":  {"check", true, "check"},
		"while it is captured": {"commit", true, "release"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTrial(t, fake.Options{})
			for i := range 60 {
				tr.write(fmt.Sprintf("src/%d.left-out", i), "x") // a line each
			}
			tr.must(os.MkdirAll(tr.JobDir, 0o700))
			tr.Args = []string{strings.Repeat("x", 4096-20-tr.headerSize())} // the next line needs another page
			command(t, "mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", tr.JobDir)
			t.Cleanup(func() { command(t, "umount", tr.JobDir) })
			if c.after == "" {
				fill(tr.JobDir)
			}
			tr.also = func(step string) error {
				if step == c.after {
					fill(tr.JobDir)
				}
				return nil
			}
			opened := false
			rep, err := tr.Backup(t.Context(), func(ctx context.Context) (*repository.Repository, error) {
				opened = true
				return tr.open(ctx)
			}, tr.options(Options{Provider: fake.Name, Exclude: []string{"*.left-out"}}))
			tr.wantCode(err, problem.StateLost)
			if rep != nil && rep.Status != job.Failed {
				t.Errorf("report: %+v", rep)
			}
			if opened != c.opened {
				t.Errorf("repository opened: %v", opened)
			}
			if n := len(tr.called); c.called == "" && n > 0 || c.called != "" && (n == 0 || tr.called[n-1] != c.called) {
				t.Errorf("called: %v", tr.called)
			}
			tr.backups(0)
			tr.nothingLeft()
		})
	}
}

// headerSize is how long the first line of a log is without arguments.
func (tr *trial) headerSize() int {
	tr.Helper()
	e := Engine{JobDir: tr.path("measure"), Args: []string{""}, Version: tr.Version}
	_, _ = e.run(tr.Context(), job.Backup, func(context.Context, *run) error { return nil })
	es, err := os.ReadDir(e.JobDir)
	tr.must(err)
	b, err := os.ReadFile(e.JobDir + "/" + es[0].Name())
	tr.must(err)
	return bytes.IndexByte(b, '\n') + 1
}

func TestStateFolderIsNone(t *testing.T) {
	tr := newTrial(t, fake.Options{})
	tr.write("jobs", "a file")
	rep, err := tr.run(Options{}, 0)
	tr.wantCode(err, problem.StateLost)
	if rep != nil || len(tr.called) > 0 {
		t.Errorf("report %+v, called %v", rep, tr.called)
	}
}
