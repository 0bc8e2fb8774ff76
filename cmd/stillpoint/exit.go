package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

// The exit codes of all commands. They are documented in `stillpoint --help`.
const (
	exitComplete   = 0
	exitFailed     = 1
	exitUsage      = 2
	exitExceptions = 3
	exitBusy       = 4
	exitCancelled  = 130
)

// errExceptions ends a command that did its work, but not all of it. What was
// missing has been printed.
var errExceptions = errors.New("complete with exceptions")

// reported wraps an error that is in the report on the screen already.
type reported struct{ error }

func (r reported) Unwrap() error { return r.error }

func exitCode(err error) int {
	var x exited
	switch {
	case err == nil:
		return exitComplete
	case errors.As(err, &x):
		return int(x)
	case errors.Is(err, errExceptions):
		return exitExceptions
	}
	switch problem.CodeOf(err) {
	case problem.Usage:
		return exitUsage
	case problem.Busy:
		return exitBusy
	case problem.Cancelled:
		return exitCancelled
	}
	return exitFailed
}

// say prints an error, once, with its code and where to read on.
func (e *env) say(err error) {
	if err == nil || errors.Is(err, errExceptions) || errors.As(err, new(reported)) || errors.As(err, new(exited)) || errors.Is(err, syscall.EPIPE) {
		return
	}
	code := problem.CodeOf(err)
	if e.json {
		_ = json.NewEncoder(e.stderr).Encode(map[string]any{"error": map[string]string{"code": string(code), "message": problem.Text(err)}})
		return
	}
	for text := range strings.SplitSeq(problem.Text(err), "\n") {
		fmt.Fprintf(e.stderr, "stillpoint: %s\n", text)
	}
	if code == problem.Usage {
		fmt.Fprintln(e.stderr, "See --help.")
		return
	}
	fmt.Fprintf(e.stderr, "  %s: read what it means and what to do with `stillpoint explain %s`\n", code, code)
}

// ended turns the end of a job into the end of its command.
func ended(r *job.Report, err error) error {
	switch {
	case err != nil:
		return reported{err}
	case r.Status == job.CompleteWithExceptions:
		return errExceptions
	}
	return nil
}
