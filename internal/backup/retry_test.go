package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/openfile"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/volume"
)

// retries are the events of a job that tell of tries that failed.
func (r *rig) retries(rep *job.Report) (all []job.Event) {
	r.Helper()
	j, err := job.Load(r.JobDir, rep.Job)
	r.must(err)
	for _, e := range j.Events {
		if e.Step == job.StepRetry && e.Code != "" {
			all = append(all, e)
		}
	}
	return all
}

// What may pass is tried again, by the rule of its class; each try is in the log.
func TestRetry(t *testing.T) {
	tr := newTrial(t, fake.Options{})
	tr.at, tr.times = "prepare", 2
	tr.how = func(context.Context) error { return problem.Newf(problem.CacheFull, "", "planned") }
	o := Options{Retry: Retry{Resources: {Times: 2, Wait: 10 * time.Millisecond}, Timeout: {Times: 9, Wait: time.Hour}}}
	rep, err := tr.run(o, 0)
	tr.must(err)
	tr.wantStatus(rep, job.Complete, "")
	all := tr.retries(rep)
	if rep.Tries != 3 || len(all) != 2 || all[0].Code != problem.CacheFull || !strings.Contains(all[1].Text, "try 2 failed; the next one begins in 10ms: ") || !strings.Contains(all[1].Text, "planned") {
		t.Errorf("%d tries, %+v", rep.Tries, all)
	}
	if rep.Total.Files != 21 || rep.Total.BytesRead == 0 {
		t.Errorf("counted over all tries: %+v", rep.Total)
	}
	tr.nothingLeft()
	tr.backups(1)

	// Once more than it is allowed.
	tr.at, tr.times = "prepare", 3
	tr.how = func(context.Context) error { return problem.Newf(problem.PoolFull, "", "planned") }
	rep, err = tr.run(o, 0)
	tr.wantCode(err, problem.PoolFull)
	tr.wantStatus(rep, job.Failed, problem.PoolFull)
	if rep.Tries != 3 {
		t.Errorf("%d tries", rep.Tries)
	}
	// Without a rule, and what does not pass.
	for _, code := range []problem.Code{problem.SnapshotFailed, problem.UnshieldedFiles} {
		tr.at, tr.times = "prepare", 1
		tr.how = func(context.Context) error { return problem.Newf(code, "", "planned") }
		rep, err = tr.run(o, 0)
		tr.wantCode(err, code)
		if rep.Tries != 0 || len(tr.retries(rep)) != 0 {
			t.Errorf("%s is tried again", code)
		}
	}
	tr.nothingLeft()
}

// A late one is the right provider of a volume, and finds out only while it prepares
// that it cannot take it: there was room, or nobody else had the device, when it was asked.
type late struct {
	*fake.Provider
	at   problem.Code // what it says then
	then problem.Code // and from then on, when it is asked; none where that has passed
	met  bool
}

func (*late) Name() string { return "late" }

func (l *late) Check(ctx context.Context, v volume.Volume) error {
	if l.met && l.then != "" {
		return problem.Newf(l.then, string(v.ID), "planned")
	}
	return l.Provider.Check(ctx, v)
}

func (l *late) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	if !l.met {
		l.met = true
		return nil, problem.Newf(l.at, "", "planned")
	}
	return l.Provider.Prepare(ctx, id, ts)
}

// Providers are asked anew at each try: what one finds out while it prepares goes to
// the next one then, and ends a job that has no next try with its code.
func TestRetryAsksAnew(t *testing.T) {
	for _, c := range []struct {
		at, then problem.Code
		want     string
	}{
		{problem.CacheFull, problem.CacheNowhere, "able"},
		{problem.PoolFull, problem.PoolFull, "able"},
		{problem.Busy, problem.Busy, "able"},
		{problem.Busy, "", "late"},
	} {
		f := fake.New(t.TempDir(), fake.Options{})
		l := &late{Provider: f, at: c.at, then: c.then}
		r := newRig(t, l, able{f})
		r.some()
		_, err := r.try(Options{Provider: Auto})
		r.wantCode(err, c.at)

		l.met = false
		once := Rule{Times: 1, Wait: time.Millisecond}
		rep, err := r.try(Options{Provider: Auto, Retry: Retry{Resources: once, Retryable: once}})
		r.must(err)
		if rep.Tries != 2 || len(rep.Volumes) != 1 || rep.Volumes[0].Provider != c.want {
			t.Errorf("%s, then %q: %d tries, taken by %+v", c.at, c.then, rep.Tries, rep.Volumes)
		}
		if held := f.Held(); len(held) > 0 {
			t.Errorf("left: %q", held)
		}
	}
}

// Nothing is held while a next try is waited for, and who cancels waits for
// nothing.
func TestRetryIsCancelled(t *testing.T) {
	tr := newTrial(t, fake.Options{})
	tr.at, tr.times = "commit", 1
	tr.how = func(context.Context) error { return problem.Newf(problem.FreezeBlocked, "", "planned") }
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	waiting := make(chan struct{}, 1)
	tr.Watch = func(e job.Event) {
		if e.Step == job.StepRetry {
			waiting <- struct{}{}
		}
	}
	go func() {
		<-waiting
		tr.nothingLeft()
		cancel(errors.New("interrupt signal received"))
	}()
	began := time.Now()
	o := tr.options(Options{Retry: Retry{Timeout: {Times: 1, Wait: time.Hour}}})
	o.Provider = fake.Name
	rep, err := tr.Backup(ctx, tr.open, o)
	tr.wantCode(err, problem.Cancelled)
	tr.wantStatus(rep, job.Cancelled, problem.Cancelled)
	if took := time.Since(began); took > time.Minute {
		t.Errorf("after %v", took)
	}
	if !strings.Contains(rep.Text, "after freeze-blocked") {
		t.Errorf("text: %s", rep.Text)
	}
}

// The exceptions of a try that failed are not those of the job.
func TestRetryForgets(t *testing.T) {
	r := newRig(t)
	r.some()
	held, err := os.OpenFile(r.write("src/held", "held"), os.O_WRONLY, 0)
	r.must(err)
	defer held.Close()
	tries := 0
	r.Watch = func(e job.Event) {
		if e.Code == problem.FileOpen {
			tries++
		}
	}
	broken := false
	open := r.open
	o := Options{Provider: None, OpenFiles: openfile.Treatment{Way: openfile.Skip}, Retry: Retry{Retryable: {Times: 1, Wait: time.Millisecond}}}
	rep, err := r.Backup(r.Context(), func(ctx context.Context) (*repository.Repository, error) {
		if !broken {
			broken = true
			return nil, problem.Newf(problem.RepositoryLost, "", "planned")
		}
		return open(ctx)
	}, r.options(o))
	r.must(err)
	r.wantStatus(rep, job.CompleteWithExceptions, problem.FileOpen)
	if rep.Tries != 2 || tries != 1 || len(rep.Exceptions) != 1 || rep.Exceptions[0].Count != 1 {
		t.Errorf("%+v", rep)
	}
}

// A snapshot that a try could not delete stays an exception of the job.
func TestRetryRemembers(t *testing.T) {
	tr := newTrial(t, fake.Options{})
	tr.at, tr.times, tr.how = "release", 1, func(context.Context) error { return errPlanned }
	var lost volume.ID
	tr.Watch = func(e job.Event) {
		switch {
		case e.Step == job.StepCapture && e.Volume != "" && lost == "":
			lost = volume.ID(e.Volume)
			tr.fake.Lose(lost, problem.Newf(problem.SnapshotLost, "", "planned"))
		case e.Step == job.StepRetry:
			tr.fake.Lose(lost, nil)
		}
	}
	rep, err := tr.run(Options{Retry: Retry{Retryable: {Times: 1, Wait: time.Millisecond}}}, 0)
	tr.must(err)
	tr.wantStatus(rep, job.CompleteWithExceptions, problem.ReleaseFailed)
	listed := 0
	tr.must(job.EachException(tr.JobDir, rep.Job, func(x job.Exception) error {
		if x.Code == problem.ReleaseFailed && x.Path == string(lost) {
			listed++
		}
		return nil
	}))
	if rep.Tries != 2 || listed != 1 {
		t.Errorf("%d tries, %d in the list", rep.Tries, listed)
	}
}

// All exceptions are in the list, and the first of each code in the log.
func TestManyExceptions(t *testing.T) {
	r := newRig(t)
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	const many = logNames + 5
	for i := range many {
		f, err := os.OpenFile(r.write(fmt.Sprintf("src/%04d", i), "x"), os.O_WRONLY, 0)
		r.must(err)
		files = append(files, f)
	}
	r.write("src/closed", "closed")
	r.write("src/left.tmp", "left out")
	rep, err := r.try(Options{OpenFiles: openfile.Treatment{Way: openfile.Skip}, Exclude: []string{"*.tmp"}})
	r.must(err)
	r.wantStatus(rep, job.CompleteWithExceptions, problem.FileOpen)
	if len(rep.Exceptions) != 1 || rep.Exceptions[0].Count != many {
		t.Errorf("%+v", rep.Exceptions)
	}
	if n := len(r.exceptions(rep)); n != logNames {
		t.Errorf("%d are in the log", n)
	}
	listed, ruled := 0, 0
	r.must(job.EachException(r.JobDir, rep.Job, func(x job.Exception) error {
		switch {
		case x.Code == problem.FileOpen && strings.Contains(x.Reason, "open_files: skip"):
			listed++
		case x.Code == "" && x.Path == r.path("src/left.tmp"):
			ruled++
		}
		return nil
	}))
	if listed != many || ruled != 1 {
		t.Errorf("%d and %d are in the list", listed, ruled)
	}
	if !strings.Contains(r.log(rep), "further exceptions of file-open are in the list only") {
		t.Error("the log does not say that there are more")
	}
}

// Of several selected files one that is open for writing is an exception, and the
// others are stored; nothing at all is no backup.
func TestSelectedOpen(t *testing.T) {
	for _, one := range []bool{false, true} {
		r := newRig(t)
		open, closed := r.write("src/a", "open"), r.write("src/b", "closed")
		f, err := os.OpenFile(open, os.O_WRONLY, 0)
		r.must(err)
		defer f.Close()
		o := Options{Paths: []string{open, closed}, Provider: None, OneAtATime: one, OpenFiles: openfile.Treatment{Way: openfile.Skip}}
		rep, err := r.try(o)
		r.must(err)
		r.wantStatus(rep, job.CompleteWithExceptions, problem.FileOpen)
		if got := r.exceptions(rep); len(got) != 1 || got["src/a"] != problem.FileOpen {
			t.Errorf("one at a time %t: %v", one, got)
		}
		if got := r.list()[0].Paths(); !slices.Equal(got, []string{closed}) {
			t.Errorf("one at a time %t: stored %q", one, got)
		}
		r.sound()
		o.Paths = []string{open}
		_, err = r.try(o)
		r.wantCode(err, problem.FileOpen)
		r.must(f.Close())
	}
}

// Volumes that no provider can take are read live where that was chosen, and never
// else; of one instant they never are.
func TestOpenFilesChosen(t *testing.T) {
	r := newRig(t)
	r.some()
	_, err := r.try(Options{Provider: Auto})
	r.wantCode(err, problem.NoProvider)
	chosen := openfile.Treatment{Way: openfile.Read}
	_, err = r.try(Options{Provider: Auto, OpenFiles: chosen, OneInstant: true})
	r.wantCode(err, problem.NotOneInstant)
	rep, err := r.try(Options{Provider: Auto, OpenFiles: chosen})
	r.must(err)
	r.wantStatus(rep, job.Complete, "")
	if rep.Level != job.Live || len(rep.Volumes) != 1 || rep.Volumes[0].Provider != None {
		t.Errorf("%+v", rep)
	}
	if !strings.Contains(r.log(rep), "read live, without a snapshot, as chosen (open_files: read)") {
		t.Error(r.log(rep))
	}
	// A provider that is the right one and fails is no missing one.
	tr := newTrial(t, fake.Options{})
	tr.at, tr.times, tr.how = "prepare", 1, func(context.Context) error { return problem.Newf(problem.SnapshotFailed, "", "planned") }
	_, err = tr.run(Options{OpenFiles: chosen}, 0)
	tr.wantCode(err, problem.SnapshotFailed)
}

// Paths have providers of their own; one volume has one.
func TestProviderOf(t *testing.T) {
	o := Options{Provider: "btrfs", ProviderOf: map[string]string{"/srv": "cow", "/srv/usb/": None}}
	for path, want := range map[string]string{"/": "btrfs", "/srvx": "btrfs", "/srv": "cow", "/srv/a": "cow", "/srv/usb": None, "/srv/usb/a": None} {
		if got := o.provider(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	r := newRig(t)
	r.write("src/a/a", "a")
	r.write("src/b/b", "b")
	_, err := r.try(Options{Paths: []string{r.path("src/a"), r.path("src/b")}, Provider: None, ProviderOf: map[string]string{r.path("src/b"): Auto}})
	r.wantCode(err, problem.Usage)
}

// A provider is chosen by any name of a path. What it could not be heeded for is
// refused, and what is not in the plan is told.
func TestProviderOfPaths(t *testing.T) {
	tr := newTrial(t, fake.Options{})
	v := scratch.New(t, "ext4", 64*mib)
	tr.must(os.Mkdir(v.Dir+"/sub", 0o755))
	link := tr.path("link")
	tr.must(os.Symlink(v.Dir, link))
	for of, want := range map[string]struct {
		code  problem.Code
		level job.Level
		warns bool
	}{
		v.Dir:                {level: job.Live},
		link:                 {level: job.Live},
		link + "/":           {level: job.Live},
		v.Dir + "/sub":       {code: problem.Usage},
		v.Dir + "/nowhere":   {code: problem.Usage},
		v.Dir + "/left.tmp":  {level: job.Crash, warns: true},
		tr.path("elsewhere"): {level: job.Crash, warns: true},
	} {
		rep, err := tr.try(Options{Paths: []string{v.Dir}, Exclude: []string{"*.tmp"}, ProviderOf: map[string]string{of: None}})
		tr.wantCode(err, want.code)
		if err == nil && (rep.Level != want.level || strings.Contains(tr.log(rep), "nothing of this backup") != want.warns) {
			t.Errorf("%s: level %s\n%s", of, rep.Level, tr.log(rep))
		}
	}
	_, err := tr.try(Options{Paths: []string{v.Dir}, ProviderOf: map[string]string{v.Dir: None, link: Auto}})
	tr.wantCode(err, problem.Usage)
}

// What an interrupted job had done is counted by the one that picks it up.
func TestSpared(t *testing.T) {
	r := newRig(t)
	r.some()
	aged() // so that the first backup, and not only the interrupted one, has these for good
	r.backup(Options{})
	r.interrupted()
	rep := r.backup(Options{})
	if !rep.Resumed || rep.Spared == nil || rep.Spared.Files < 10 || rep.Spared.Files > 30 || rep.Spared.Bytes != rep.Spared.Files*bigFile {
		t.Errorf("%+v of %+v", rep.Spared, rep.Total)
	}
	if rep.Spared.Bytes+rep.Total.BytesRead < 30*bigFile {
		t.Errorf("spared %d, read %d", rep.Spared.Bytes, rep.Total.BytesRead)
	}
	if again := r.backup(Options{}); again.Spared != nil {
		t.Errorf("the next one: %+v", again.Spared)
	}
}
