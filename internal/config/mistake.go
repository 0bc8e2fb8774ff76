package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// A Mistake is one place in the file that cannot be as it is.
type Mistake struct {
	Line, Column int
	Job          string // that cannot run for it; empty where nothing can
	Key          string // with dots between a key and one that is in it
	Text         string // what is wrong, and what may stand there
}

func (m *Mistake) Error() string {
	text := m.Text
	if m.Key != "" {
		text = m.Key + ": " + text
	}
	if m.Line > 0 {
		text = fmt.Sprintf("[%d:%d] %s", m.Line, m.Column, text)
	}
	return text
}

// relative says that a path is none from the root. Somebody may have written a
// secret where the file belongs that has it.
func relative(key, path string) string {
	for _, of := range []string{"password_file", "secret_file", "token_file"} {
		if strings.HasSuffix(key, of) {
			return "does not begin with a slash: write the path of a file that holds it"
		}
	}
	return fmt.Sprintf("%q does not begin with a slash", path)
}

var place = regexp.MustCompile(`^\[\d+:\d+\] `)

// bare is an error without its place.
func bare(err error) string { return place.ReplaceAllString(err.Error(), "") }

// Mistakes are all that an error is made of which a file could not be read for;
// none where it is of another kind.
func Mistakes(err error) (all []*Mistake) {
	var m *Mistake
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range j.Unwrap() {
			all = append(all, Mistakes(e)...)
		}
		return all
	}
	if inner := errors.Unwrap(err); inner != nil {
		return Mistakes(inner)
	}
	if errors.As(err, &m) {
		return []*Mistake{m}
	}
	return nil
}
