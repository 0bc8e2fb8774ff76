package aide

import (
	"encoding/json"
	"errors"

	"stillpoint/internal/problem"
)

// A wire is an error on its way: net/rpc carries its text alone.
type wire struct {
	Code    problem.Code
	Subject string
	Text    string
}

// Failed is an error for Call to return at the other end, with its code.
func Failed(err error) error {
	if err == nil {
		return nil
	}
	w := wire{Code: problem.CodeOf(err), Text: err.Error()}
	if p, ok := err.(*problem.Problem); ok && p.Subject != "" && p.Err != nil {
		w.Subject, w.Text = p.Subject, p.Err.Error()
	}
	b, _ := json.Marshal(w) // texts alone: that cannot fail
	return errors.New(string(b))
}

func read(text string) error {
	var w wire
	if err := json.Unmarshal([]byte(text), &w); err != nil || w.Code == "" {
		return problem.New(problem.WriterFailed, "", errors.New(text))
	}
	return problem.New(w.Code, w.Subject, errors.New(w.Text))
}
