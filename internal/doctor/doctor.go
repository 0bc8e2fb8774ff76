package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"stillpoint/internal/problem"
)

// A Result is how a finding is.
type Result string

// The results, the best first.
const (
	NotApplicable Result = "not applicable"
	OK            Result = "ok"
	Unknown       Result = "could not look"
	Warning       Result = "warning"
	Failure       Result = "failure" // a backup would fail
)

var order = []Result{NotApplicable, OK, Unknown, Warning, Failure}

// A Finding is one thing that a check has to say.
type Finding struct {
	Check   string
	Result  Result
	Code    problem.Code // of a failure, a warning, and what could not be looked at
	Subject string       // what it is about: a path, a process; may be empty
	Text    string       // what was found
	Means   string       // for a backup
	Advice  string       // what to do

	// Mend does what is safe and says what it did; nil where there is
	// nothing such. Mended is that, once it is done.
	Mend   func(ctx context.Context) (string, error)
	Mended string
}

// A Check looks at one thing.
type Check struct {
	Name  string        // a word, lasting
	Limit time.Duration // how long it may take; 0 stands for 10 s

	// Look changes nothing. An error says that it could not look.
	Look func(ctx context.Context) ([]Finding, error)
}

const usualLimit = 10 * time.Second

// Run makes all checks at once and returns what they found, in the order of the
// checks. One that does not come back in time is left behind.
func Run(ctx context.Context, checks []Check) []Finding {
	found := make([][]Finding, len(checks))
	var wait sync.WaitGroup
	for i, c := range checks {
		wait.Go(func() { found[i] = c.run(ctx) })
	}
	wait.Wait()
	return slices.Concat(found...)
}

func (c Check) run(ctx context.Context) []Finding {
	limit := c.Limit
	if limit == 0 {
		limit = usualLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type result struct {
		fs  []Finding
		err error
	}
	done := make(chan result, 1)
	go func() {
		fs, err := c.Look(ctx)
		done <- result{fs, err}
	}()
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
		// It may be about to come back with what it has.
		select {
		case r = <-done:
		case <-time.After(grace):
			r.err = ctx.Err()
		}
	}
	if errors.Is(r.err, context.DeadlineExceeded) {
		r.err = problem.Newf(problem.LookFailed, "", "no answer within %s", limit)
	}
	if r.err != nil {
		r.fs = append(r.fs, unknown(r.err))
	}
	for i := range r.fs {
		r.fs[i].Check = c.Name
	}
	return r.fs
}

// grace is for a check that hears that its time is over.
const grace = time.Second

// Worst is the worst result of findings.
func Worst(fs []Finding) Result {
	worst := NotApplicable
	for _, f := range fs {
		if slices.Index(order, f.Result) > slices.Index(order, worst) {
			worst = f.Result
		}
	}
	return worst
}

// Mend mends what can be, and notes what was done. What is mended is ok then.
func Mend(ctx context.Context, fs []Finding) {
	for i := range fs {
		f := &fs[i]
		if f.Mend == nil {
			continue
		}
		did, err := f.Mend(ctx)
		f.Mended = did
		if err != nil {
			f.Text += "; it could not be mended: " + problem.Text(err)
			continue
		}
		f.Result, f.Code = OK, ""
	}
}

func none(format string, args ...any) []Finding {
	return []Finding{{Result: NotApplicable, Text: fmt.Sprintf(format, args...)}}
}

func fine(format string, args ...any) Finding {
	return Finding{Result: OK, Text: fmt.Sprintf(format, args...)}
}

func unknown(err error) Finding {
	code := problem.CodeOf(err)
	if code == problem.Uncatalogued {
		code = problem.LookFailed
	}
	return Finding{Result: Unknown, Code: code, Text: problem.Text(err),
		Means: "it is not known whether this would be in the way of a backup", Advice: "run it as root, and once more when the host is less busy"}
}

// warned is a warning about a subject.
func warned(code problem.Code, subject, format string, args ...any) Finding {
	return Finding{Result: Warning, Code: code, Subject: subject, Text: fmt.Sprintf(format, args...)}
}

// failed is a failure with what an error says.
func failed(subject string, err error) Finding {
	return Finding{Result: Failure, Code: problem.CodeOf(err), Subject: subject, Text: problem.Text(problem.New(problem.CodeOf(err), subject, err))}
}

// so adds what it means and what to do.
func (f Finding) so(means, advice string) Finding {
	f.Means, f.Advice = means, advice
	return f
}
