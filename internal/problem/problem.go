// Package problem is the catalogue of everything that can go wrong. A problem
// is an error with a code: a lasting, readable word with one page under
// catalogue/ that says what happened, what it means for the backup and what to
// do. The package knows the codes and their pages, and nothing of the rest of
// the program.
package problem

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// A Code names one kind of failure. Codes are never reused and never renamed.
type Code string

// A Problem is an error whose kind is known.
type Problem struct {
	Code    Code   // what kind of failure
	Subject string // the thing it concerns: a path, a volume, a backup; may be empty
	Err     error  // the cause, in words; may be nil
}

// New gives cause its code. The package that first understands a failure calls
// it; everyone above adds context with fmt.Errorf and %w.
func New(code Code, subject string, cause error) *Problem {
	return &Problem{Code: code, Subject: subject, Err: cause}
}

// Newf is New with a cause made by fmt.Errorf.
func Newf(code Code, subject, format string, args ...any) *Problem {
	return New(code, subject, fmt.Errorf(format, args...))
}

func (p *Problem) Error() string {
	switch {
	case p.Subject == "" && p.Err == nil:
		return string(p.Code)
	case p.Subject == "":
		return p.Err.Error()
	case p.Err == nil:
		return p.Subject
	}
	return p.Subject + ": " + p.cause()
}

// cause is the text of the cause, in which the subject is not said again.
func (p *Problem) cause() string {
	text := p.Err.Error()
	var pe *fs.PathError
	if errors.As(p.Err, &pe) && pe.Path == p.Subject && !strings.Contains(text, "\n") {
		text = strings.Replace(text, pe.Error(), pe.Op+": "+pe.Err.Error(), 1)
	}
	return strings.TrimPrefix(text, p.Subject+": ")
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Is reports whether err carries the code anywhere: in its chain, or in any
// branch of joined errors.
func Is(err error, code Code) bool {
	if p, ok := err.(*Problem); ok && p.Code == code {
		return true
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		return Is(u.Unwrap(), code)
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			if Is(e, code) {
				return true
			}
		}
	}
	return false
}

// Text is what err says to people: a line for each of the errors that are
// joined in it. A newline in one of them, as in names of files, is written \n.
func Text(err error) string {
	if err == nil {
		return ""
	}
	all := lines(err)
	for i := range all {
		all[i] = strings.ReplaceAll(all[i], "\n", `\n`)
	}
	return strings.Join(slices.Compact(all), "\n")
}

// lines takes joined errors apart, with what was put before them.
func lines(err error) []string {
	if joined(err) {
		var all []string
		for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
			all = append(all, lines(e)...)
		}
		return all
	}
	inner := errors.Unwrap(err)
	if inner == nil {
		return []string{err.Error()}
	}
	before, ok := strings.CutSuffix(err.Error(), inner.Error())
	if !ok {
		return []string{err.Error()}
	}
	all := lines(inner)
	for i := range all {
		all[i] = before + all[i]
	}
	return all
}

// joined tells whether err is what errors.Join makes, and not one text with
// several causes.
func joined(err error) bool {
	j, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return false
	}
	var texts []string
	for _, e := range j.Unwrap() {
		texts = append(texts, e.Error())
	}
	return err.Error() == strings.Join(texts, "\n")
}
