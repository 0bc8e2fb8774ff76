// Package notify tells others how a job ended: a program, a mail box, a web
// service, or Prometheus by way of a file. It knows how each of them is told and
// how long it may take; what a job is, package job knows. A notice that cannot
// be given is a problem with the code notify-failed, and changes nothing about
// the job. Secrets are read from their files when they are needed, and no error
// shows them.
package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

// Limit is how long one notice may take where nothing else is said.
const Limit = time.Minute

// A Notice is what is told.
type Notice struct {
	Header job.Header
	Report *job.Report
	Name   string // of the job in the configuration; empty for one that has none

	// Page makes the job's HTML page. Nil where there is none.
	Page func() ([]byte, error)

	Test bool // nothing has happened: somebody looks whether notices arrive
}

// JSON is the report as `job show --json` prints it.
func (n *Notice) JSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(n.Report)
	return b.Bytes(), err
}

// A Notifier tells one receiver.
type Notifier interface {
	// Notify tells it. It ends when the context does.
	Notify(ctx context.Context, n *Notice) error
	// About says for people who is told, without secrets.
	About() string
}

// An Occasion is when a receiver is told.
type Occasion string

// The occasions. A job that was cancelled has failed.
const (
	Success    Occasion = "success"    // complete, with or without exceptions
	Exceptions Occasion = "exceptions" // complete with exceptions
	Failure    Occasion = "failure"
	Always     Occasion = "always"
)

// An Entry is one receiver with when it is told.
type Entry struct {
	Name  string
	On    []Occasion // of which one has to be; empty is always
	Kinds []job.Kind // of jobs; empty is backup and verify
	Limit time.Duration
	Notifier
}

// Concerns tells whether an entry is for jobs that end so.
func (e Entry) Concerns(r *job.Report) bool {
	kinds := e.Kinds
	if len(kinds) == 0 {
		kinds = []job.Kind{job.Backup, job.Verify}
	}
	if !slices.Contains(kinds, r.Kind) {
		return false
	}
	return len(e.On) == 0 || slices.ContainsFunc(e.On, func(o Occasion) bool {
		switch o {
		case Always:
			return true
		case Success:
			return r.Status == job.Complete || r.Status == job.CompleteWithExceptions
		case Exceptions:
			return r.Status == job.CompleteWithExceptions
		}
		return r.Status == job.Failed || r.Status == job.Cancelled
	})
}

// A Result is how it went with one entry.
type Result struct {
	Entry Entry
	Took  time.Duration
	Err   error // with a code; nil where it was told
}

// Tell tells all of these at once, whether they are concerned or not, and waits
// for them. None can hold it up for longer than its limit.
func Tell(ctx context.Context, entries []Entry, n *Notice) []Result {
	results := make([]Result, len(entries))
	var wait sync.WaitGroup
	for i, e := range entries {
		wait.Go(func() {
			began := time.Now()
			err := e.tell(ctx, n)
			results[i] = Result{Entry: e, Took: time.Since(began), Err: err}
		})
	}
	wait.Wait()
	return results
}

func (e Entry) tell(ctx context.Context, n *Notice) error {
	limit := e.Limit
	if limit == 0 {
		limit = Limit
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %s", limit))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- e.Notify(ctx, n) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case err = <-done:
		case <-time.After(grace): // it does not listen
			err = context.Cause(ctx)
		}
	}
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return problem.New(problem.NotifyFailed, e.Name, err)
}

// grace is how long a notifier whose time is over may take to give up.
const grace = 3 * time.Second

// secret reads a file that holds one. A line end at its end does not count.
func secret(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}
