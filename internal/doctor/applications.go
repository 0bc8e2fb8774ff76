package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
)

// Applications asks whether the applications that have files in the selection
// can be brought to rest.
func Applications(s Subject, list func(ctx context.Context) ([]*quiesce.Application, error)) Check {
	return Check{Name: "applications", Limit: time.Minute, Look: func(ctx context.Context) ([]Finding, error) {
		if !s.whole() && len(s.Entered()) == 0 {
			return none(notEntered), nil
		}
		all, err := list(ctx)
		var fs []Finding
		var able []string
		for _, a := range all {
			if a.Err == nil {
				able = append(able, a.ID)
				continue
			}
			f := Finding{Result: Warning, Code: problem.CodeOf(a.Err), Subject: a.ID, Text: problem.Text(a.Err), Advice: "see `stillpoint explain " + string(problem.CodeOf(a.Err)) + "`"}
			switch a.Policy {
			case quiesce.Exclude:
				f.Means = "it cannot be brought to rest, and its files are left out, as its policy says"
			case quiesce.Crash:
				f.Means = "it cannot be brought to rest, and its files are as after a power cut"
			default:
				f.Means = "it cannot be brought to rest, and a backup fails then"
				if !s.whole() {
					f.Result = Failure
				}
			}
			fs = append(fs, f)
		}
		if len(able) > 0 {
			fs = append(fs, fine("can be brought to rest: %s", strings.Join(able, ", ")))
		}
		if len(fs) == 0 && err == nil {
			return none("no application was found that could be brought to rest"), nil
		}
		return fs, withCode(err)
	}}
}

// withCode is an error that says what could not be looked at.
func withCode(err error) error {
	if err == nil || errors.Is(err, context.DeadlineExceeded) || problem.CodeOf(err) != problem.Uncatalogued {
		return err
	}
	return problem.New(problem.LookFailed, "", fmt.Errorf("look for applications: %w", err))
}
