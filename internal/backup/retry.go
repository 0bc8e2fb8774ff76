package backup

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// Retry says what is done when a backup failed with something that may pass. What
// has no rule is not tried again.
type Retry map[Class]Rule

// A Rule says how often something is tried again, and after how long.
type Rule struct {
	Times int
	Wait  time.Duration
}

// A Class is one kind of failures that may pass; the words are those of VSS, whose
// writers class theirs so.
type Class string

// The classes.
const (
	Resources Class = "resources" // no room or memory was left
	Timeout   Class = "timeout"   // something was not to be had in time
	Retryable Class = "retryable" // it was refused, lost or held by others
)

// ClassOf tells the class of a code; the empty one does not pass by itself. What
// applications say is not here: a capture tries them again by itself.
func ClassOf(code problem.Code) Class {
	switch code {
	case problem.CacheFull, problem.SnapshotFull, problem.PoolFull, problem.RepositoryFull:
		return Resources
	case problem.FreezeBlocked, problem.NoQuietTime, problem.WindowClosed:
		return Timeout
	case problem.SnapshotFailed, problem.SnapshotLost, problem.CacheLost, problem.VolumeLate, problem.RepositoryLost, problem.Busy:
		return Retryable
	}
	return ""
}

// retrying takes a backup, and again what failed. Between two tries nothing is
// held: every snapshot is released, and the repository is closed.
func (r *run) retrying(ctx context.Context, o Options, open Open) error {
	tried := map[Class]int{}
	for try := int64(1); ; try++ {
		b := &backing{run: r, o: o, treated: map[string]bool{}, parts: map[volume.ID][]volume.ID{}}
		err := b.backup(ctx, open)
		class := ClassOf(problem.CodeOf(err))
		rule := o.Retry[class]
		if err == nil || ctx.Err() != nil || tried[class] >= rule.Times || r.recorded() || r.logged() != nil {
			return err
		}
		tried[class]++
		r.event(job.Event{
			Severity: job.Warning, Step: job.StepRetry, Code: problem.CodeOf(err),
			Text: fmt.Sprintf("try %d failed; the next one begins in %s: %s", try, rule.Wait, strings.ReplaceAll(problem.Text(err), "\n", "; ")),
			Data: map[string]any{"try": try, "class": string(class), "again": tried[class], "times": rule.Times, "wait_ms": rule.Wait.Milliseconds()},
		})
		select {
		case <-time.After(rule.Wait):
		case <-ctx.Done():
			return problem.Newf(problem.Cancelled, "", "%w, while a next try was waited for, after %s", context.Cause(ctx), problem.CodeOf(err))
		}
		if err := r.anew(o, try+1); err != nil {
			return err
		}
	}
}

// recorded tells whether a backup may have been recorded. Another try would record
// a second one with the same id, and what failed came behind, or in between.
func (r *run) recorded() bool {
	return r.report.Backup != "" || slices.ContainsFunc(r.report.Timeline, func(s job.Span) bool { return s.Step == string(job.StepRecord) })
}

// anew forgets what a try had to tell that failed: the log has it. A snapshot that
// could not be deleted remains an exception.
func (r *run) anew(o Options, try int64) error {
	*r.report = job.Report{Tries: try}
	r.set = strings.ToLower(rand.Text()[:10]) // a set of the last one may be left
	r.tally.Forget(problem.ReleaseFailed)
	o.Progress.Forget()
	r.mu.Lock()
	r.named = nil
	r.mu.Unlock()
	r.event(job.Event{Step: job.StepRetry, Text: fmt.Sprintf("try %d begins", try), Data: map[string]any{"try": try}})
	var stay []job.Exception
	err := job.EachException(r.e.JobDir, r.log.ID(), func(x job.Exception) error {
		if x.Code == problem.ReleaseFailed {
			stay = append(stay, x)
		}
		return nil
	})
	if err == nil {
		err = r.log.ForgetExceptions()
	}
	for _, x := range stay {
		r.except(x)
	}
	return err
}

// demanded fails a job with exceptions where none was to be. The backup, which is
// marked as one with exceptions, stays: it may be all there is.
func (r *run) demanded(o Options) error {
	if !o.NoExceptions {
		return nil
	}
	var tallied job.Report
	r.tally.Fill(&tallied)
	if len(tallied.Exceptions) == 0 {
		return nil
	}
	var all []string
	for _, x := range tallied.Exceptions {
		all = append(all, fmt.Sprintf("%d of %s", x.Count, x.Code))
	}
	return problem.Newf(problem.ExceptionsRefused, "", "there are exceptions, and none were to be: %s; the backup is kept, marked as one with exceptions", strings.Join(all, ", "))
}
