package backup

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/job"
	"stillpoint/internal/openfile"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/repository"
	"stillpoint/internal/volume"
)

// Options say what is backed up and what is demanded.
type Options struct {
	Paths         []string
	Exclude       []string
	Provider      string             // Auto, None or a name; empty is Auto
	ProviderOf    map[string]string  // the same for what lies at or below a live path
	OpenFiles     openfile.Treatment // of what is read live; the zero one reads live only what None was chosen for
	OneInstant    bool               // fail where everything cannot be of one instant
	Application   bool               // fail where not all applications that are found can be brought to rest
	OneAtATime    bool               // one volume after the other: capture, store, release
	Quiet         Quiet              // wait for quiet time first
	OneFileSystem bool               // leave out what is mounted below the paths
	Checkpoint    time.Duration      // how often an unfinished backup is made resumable; 0 for never
	Parallel      int                // files in work at once; 0 for a good number
	Retry         Retry              // what is tried again that failed
	NoExceptions  bool               // a backup with exceptions is a job that failed
	Said          []string           // for the log, at its beginning
	Concerns      []job.Concern      // for the log and the report, known before it begins

	Progress *repository.Progress     // may be nil
	Expect   func(files, bytes int64) // told what the last backup held, as an estimate; may be nil
	Counted  bool                     // count the files where there is no last backup, for Expect
}

// Quiet says whether a capture waits for a moment in which nobody writes to the
// volumes.
type Quiet struct {
	For     time.Duration // for how long nobody may write; 0 waits for nothing
	Timeout time.Duration // how long is waited for that
	Else    Otherwise     // what happens if there is no such time; empty is ElseFail
}

// An Otherwise is what happens without a quiet time.
type Otherwise string

// What can happen.
const (
	ElseFail       Otherwise = "fail"
	ElseContinue   Otherwise = "continue"      // without
	ElseOneAtATime Otherwise = "one-at-a-time" // each volume waits for a quiet time of its own, and goes on without
)

// Backup takes one backup. The report is there unless no job could be begun.
func (e *Engine) Backup(ctx context.Context, open Open, o Options) (*job.Report, error) {
	if o.Progress == nil {
		o.Progress = &repository.Progress{}
	}
	return e.run(ctx, job.Backup, func(ctx context.Context, r *run) error {
		for _, text := range o.Said {
			r.event(job.Event{Step: job.StepPlan, Text: text})
		}
		for _, c := range o.Concerns {
			r.event(job.Event{Severity: job.Warning, Step: job.StepPlan, Path: c.Subject, Code: c.Code, Text: c.Text})
		}
		err := r.retrying(ctx, o, open)
		r.report.Warnings = append(slices.Clone(o.Concerns), r.report.Warnings...)
		if err != nil {
			return err
		}
		return r.demanded(o)
	})
}

// backing is one backup under way.
type backing struct {
	*run
	o    Options
	repo *repository.Repository
	plan *plan
	cap  *capture
	rec  repository.Backup

	at    time.Time                 // the instant of what is stored now
	parts map[volume.ID][]volume.ID // of each volume a snapshot was taken of

	table   *volume.Table
	apps    *quiesce.Applications
	treated map[string]bool // applications that were given up and counted

	watch *openfile.Watch // of files that are read live; nil without a treatment
}

func (b *backing) backup(ctx context.Context, open Open) error {
	if _, err := b.cleanUp(ctx); err != nil {
		return err
	}
	repo, err := open(ctx)
	if err != nil {
		return err
	}
	defer repo.Close(context.WithoutCancel(ctx))
	b.repo = repo
	rules, err := b.decide(ctx)
	if err != nil {
		return err
	}
	fault.Point("backup:planned")
	defer func() { b.report.Applications = b.applications() }()
	if err := b.take(ctx, rules); err != nil {
		return err
	}
	b.sizes(ctx) // when nothing is kept any more
	return b.logged()
}

// decide decides what is taken and how.
func (b *backing) decide(ctx context.Context) (rules *rules, err error) {
	defer func(end func(error)) { end(err) }(b.step(job.StepPlan))
	if rules, err = b.makePlan(ctx); err != nil {
		return nil, err
	}
	if err := b.preflight(ctx, rules); err != nil {
		return nil, err
	}
	return rules, b.findApplications(ctx, rules)
}

// take takes and stores all volumes, together or one after the other.
func (b *backing) take(ctx context.Context, rules *rules) error {
	if err := b.watchFiles(ctx); err != nil {
		return err
	}
	defer b.unwatch()
	if !b.o.OneAtATime {
		err := b.atOnce(ctx, rules)
		if !b.volumeByVolume(err) {
			return err
		}
	}
	return b.oneByOne(ctx, rules)
}

// atOnce captures all volumes together.
func (b *backing) atOnce(ctx context.Context, rules *rules) (err error) {
	if b.cap, err = b.capture(ctx, b.plan, b.apps, b.o.OneInstant); err != nil {
		return err
	}
	why := "the backup failed"
	defer func() {
		b.cached()
		b.cap.release(ctx, b.run, b.plan, why)
	}()
	fault.Point("backup:captured")
	if err := b.cap.read(ctx); err != nil {
		return err
	}
	if err := b.rested(rules); err != nil {
		return err
	}
	b.describe()
	b.hide(b.plan, rules)
	if err := b.storeAndRecord(ctx, rules, b.storeAll); err != nil {
		return err
	}
	fault.Point("backup:recorded")
	why = "no longer needed"
	b.cached()
	b.cap.release(ctx, b.run, b.plan, why)
	fault.Point("backup:released")
	return b.logged()
}

func (b *backing) makePlan(ctx context.Context) (*rules, error) {
	t, err := volumes(ctx)
	if err != nil {
		return nil, err
	}
	b.table = t
	for _, w := range t.Warnings() {
		b.event(job.Event{Severity: job.Warning, Step: job.StepPlan, Text: problem.Text(w)})
	}
	rules, err := newRules(b.o.Exclude, placeOf(b.repo.Path(), t))
	if err != nil {
		return nil, err
	}
	if b.plan, err = makePlan(ctx, t, b.e.Providers, b.o, rules); err != nil {
		return nil, err
	}
	for _, w := range b.plan.warnings {
		b.event(job.Event{Severity: job.Warning, Step: job.StepPlan, Path: w.path, Code: w.code, Text: w.reason})
	}
	for _, l := range b.plan.leftOut {
		b.leftOut(job.StepPlan, l.path, l.code, l.reason)
	}
	return rules, nil
}

// placeOf finds the folder of the repository, so that it is left out.
func placeOf(path string, t *volume.Table) repoPlace {
	p := repoPlace{path: path}
	if r, err := filepath.EvalSymlinks(path); err == nil {
		p.path = r
	}
	if v, _, _, err := t.Find(p.path); err == nil {
		p.volume = v.ID
	}
	if fi, err := os.Stat(p.path); err == nil {
		p.inode = inode(fi)
	}
	return p
}

// has made resumable meanwhile, also when it fails.
type storer func(ctx context.Context, w *repository.Writer, rules *rules) (*checkpoints, error)

func (b *backing) storeAndRecord(ctx context.Context, rules *rules, store storer) error {
	w, err := b.repo.Begin(ctx, b.o.Progress)
	if err != nil {
		return err
	}
	began := b.e.now()
	defer func() {
		w.Close(ctx) // what is stored is counted then
		if b.report.Backup == "" {
			b.count(began) // how far it came
		}
	}()
	end := b.step(job.StepStore)
	points, err := store(ctx, w, rules)
	end(err)
	if err == nil {
		fault.Point("backup:stored")
		err = b.cap.ask()
	}
	if problem.Is(err, problem.SnapshotLost) || err != nil && b.cap.ask() != nil {
		// What was checkpointed came from the same snapshot.
		if ferr := points.forget(context.WithoutCancel(ctx), w); ferr != nil {
			b.event(job.Event{Severity: job.Warning, Step: job.StepAsk, Code: problem.CodeOf(ferr), Text: problem.Text(ferr)})
		}
	}
	if err != nil {
		return err
	}
	fault.Point("backup:asked")
	if err := b.logged(); err != nil {
		return err
	}
	return b.record(ctx, w, rules, began)
}

// record makes a backup of what is stored.
func (b *backing) record(ctx context.Context, w *repository.Writer, rules *rules, began time.Time) (err error) {
	defer func(end func(error)) { end(err) }(b.step(job.StepRecord))
	if err := w.Flush(ctx); err != nil { // what is stored is counted then
		return err
	}
	b.count(began)
	if err := w.Record(ctx, &b.rec); err != nil {
		return err
	}
	b.report.Backup = b.rec.ID
	b.report.Total.BytesStored = b.o.Progress.StoredBytes.Load()
	b.report.UnusedExcludes = rules.unused()
	b.event(job.Event{Step: job.StepRecord, Text: "backup " + b.rec.ID + " recorded"})
	return nil
}
