package backup

import (
	"cmp"
	"context"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/coordinator"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/repository"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// undoTime is how long one step of undoing may take when the run itself is
// over or cancelled.
const undoTime = 2 * time.Minute

// An Engine runs jobs on this host.
type Engine struct {
	Providers    []snapshot.Provider // in order of preference
	Applications quiesce.Settings    // how applications are brought to rest
	JobDir       string              // folder of the job logs
	Args         []string            // the command line, for the log
	Version      string              // of the program, for the log
	Now          func() time.Time    // the clock; nil for the real one
	Watch        func(job.Event)     // is told every event of a job; may be nil

	// Ended is told how a job ended, before its log is closed, and may still add
	// events; and how jobs did whose logs it closed, for they died. Nothing is held
	// then. It has to limit itself. Its context ends by a signal that comes
	// meanwhile, not by one that ended the job. May be nil.
	Ended func(ctx context.Context, h job.Header, r *job.Report, add func(job.Event))
	// Of a backup, for its log: its name in the configuration, the settings that
	// it can be run again by, and the job that it runs again. All may be empty.
	JobName  string
	Settings map[string][]string
	RetryOf  string

	// Cache is the choice that Providers have, for the preflight.
	Cache snapshot.CacheChoice

	shorter *coordinator.Limits // for tests
}

func (e *Engine) limits() coordinator.Limits {
	if e.shorter != nil {
		return *e.shorter
	}
	return coordinator.Limits{Undo: undoTime}
}

// Open opens the repository of a job. It is called inside the job, so that a
// repository that cannot be opened is in the job log.
type Open func(ctx context.Context) (*repository.Repository, error)

func (e *Engine) now() time.Time {
	if e.Now != nil {
		return e.Now()
	}
	return time.Now()
}

// A run is one job from its log's first line to its last.
type run struct {
	e      *Engine
	began  time.Time // on the clock that measures, which is not the Engine's
	log    *job.Log
	set    string // id of the snapshot sets: that of the job, or of a further try
	tally  job.Tally
	report *job.Report

	mu     sync.Mutex
	logErr error          // the first failure to write the log
	named  map[string]int // how many names there were of each kind

	captures int      // so far
	dead     []string // jobs that died, whose logs this one closed
}

// run makes the log of a job, does it, and closes the log. The report says how
// it ended; the error, why it failed.
func (e *Engine) run(ctx context.Context, kind job.Kind, do func(ctx context.Context, r *run) error) (*job.Report, error) {
	log, err := job.Create(e.JobDir, job.Start{Kind: kind, Args: e.Args, Version: e.Version, Now: e.Now, Name: e.JobName, Settings: e.Settings, RetryOf: e.RetryOf})
	if err != nil {
		return nil, err
	}
	r := &run{e: e, began: time.Now(), log: log, set: log.ID(), report: &job.Report{}}
	err = do(ctx, r)
	if err != nil && ctx.Err() != nil && problem.CodeOf(err) != problem.Cancelled {
		// What a step says that was interrupted is a consequence, and so
		// is its code.
		err = problem.Newf(problem.Cancelled, "", "%w: %s", context.Cause(ctx), strings.ReplaceAll(problem.Text(err), "\n", "; "))
	}
	if err == nil {
		err = log.SyncExceptions()
	}
	if err != nil {
		r.event(job.Event{Severity: job.Error, Step: job.StepLog, Code: problem.CodeOf(err), Text: problem.Text(err)})
	}
	r.tally.Fill(r.report)
	r.report.Settle(err)
	log.Finish(r.report)
	if e.Ended != nil {
		r.tell(ctx)
	}
	if cerr := log.Close(r.report); cerr != nil && err == nil {
		err = cerr
		r.report.Settle(err)
	}
	return r.report, err
}

// event writes to the log. A log that cannot be written costs the job, but not
// here: the run asks with logged before it says that it is complete.
func (r *run) event(ev job.Event) {
	if ev.Time.IsZero() {
		ev.Time = r.e.now()
	}
	if ev.Severity == "" {
		ev.Severity = job.Info
	}
	err := r.log.Add(ev)
	if r.e.Watch != nil {
		r.e.Watch(ev)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.logErr == nil {
		r.logErr = err
	}
}

// intend writes the intent of a change to the host, on disk before it is made.
func (r *run) intend(ev job.Event) error {
	ev.Time, ev.Severity = r.e.now(), job.Info
	if r.e.Watch != nil {
		r.e.Watch(ev)
	}
	return r.log.Intent(ev)
}

func (r *run) logged() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.logErr
}

// exception notes something that is not stored or restored as it was.
func (r *run) exception(step job.Step, path string, err error) {
	code := problem.CodeOf(err)
	r.tally.Exception(code, path)
	text := without(path, problem.Text(err))
	r.except(job.Exception{Path: path, Code: code, Reason: text, Step: step})
	if r.told(string(code), "of "+string(code)) {
		r.event(job.Event{Severity: job.Warning, Step: step, Path: path, Code: code, Text: text})
	}
}

// except writes a name into the list of exceptions.
func (r *run) except(x job.Exception) {
	if err := r.log.Except(x); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.logErr = cmp.Or(r.logErr, err)
	}
}

// told tells whether one more event of this kind goes into the log, and says in
// the log once that the others do not.
func (r *run) told(kind, what string) bool {
	r.mu.Lock()
	if r.named == nil {
		r.named = map[string]int{}
	}
	r.named[kind]++
	n := r.named[kind]
	r.mu.Unlock()
	if n == logNames+1 && what != "" {
		r.event(job.Event{Step: job.StepLog, Text: "further exceptions " + what + " are in the list only: stillpoint job show " + r.log.ID() + " --exceptions"})
	}
	return n <= logNames
}

// without leaves the subject away with which lines of a text begin.
func without(subject, text string) string {
	return strings.ReplaceAll("\n"+text, "\n"+subject+": ", "\n")[1:]
}

// logNames is how many names of one kind are in the log. Of what has a code, the
// list of exceptions has all; of what a rule leaves out it has no more: an exclude
// that fits a million names would else write a file of 160 MB every night.
const logNames = 1000

// leftOut notes something that is not in the backup. With a code it is an
// exception, too; of what a rule leaves out, the report has the number.
func (r *run) leftOut(step job.Step, path string, code problem.Code, reason string) {
	r.tally.LeftOut(code, reason, path)
	ev := job.Event{Step: step, Path: path, Code: code, Text: "left out: " + reason}
	kind, what := "left out: "+reason, ""
	if code != "" {
		r.tally.Exception(code, path)
		ev.Severity = job.Warning
		kind, what = string(code), "of "+string(code)
	}
	told := r.told(kind, what)
	if told || code != "" {
		r.except(job.Exception{Path: path, Code: code, Reason: ev.Text, Step: step})
	}
	if told {
		r.event(ev)
	}
}

// release deletes one snapshot, whatever became of the run.
func (r *run) release(ctx context.Context, step job.Step, s snapshot.Snapshot, why string) {
	if err := undone(ctx, r.e.limits().Undo, s.Release); err != nil {
		text := "snapshot " + s.ID() + " could not be deleted: " + problem.Text(err)
		r.tally.Exception(problem.ReleaseFailed, s.ID())
		r.except(job.Exception{Path: string(s.Volume()), Code: problem.ReleaseFailed, Reason: text, Step: step})
		r.event(job.Event{Severity: job.Error, Step: step, Volume: string(s.Volume()), Code: problem.ReleaseFailed, Text: text})
		return
	}
	r.event(job.Event{Step: step, Volume: string(s.Volume()), Done: s.ID(), Text: "snapshot " + s.ID() + " deleted: " + why})
}

// volumes reads what is mounted now.
func volumes(ctx context.Context) (*volume.Table, error) {
	return volume.Read(ctx, volume.Host())
}
