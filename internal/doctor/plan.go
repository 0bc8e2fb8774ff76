package doctor

import (
	"context"

	"stillpoint/internal/problem"
)

// Plan makes the plan of a backup, which is the last word on whether there would
// be one.
func Plan(s Subject, plan func(ctx context.Context) error) Check {
	return Check{Name: "plan", Look: func(ctx context.Context) ([]Finding, error) {
		if s.whole() {
			return none("no paths were given"), nil
		}
		if err := plan(ctx); err != nil {
			return []Finding{failed("", err).so("a backup fails before anything is taken", "see `stillpoint explain "+string(problem.CodeOf(err))+"`")}, nil
		}
		return []Finding{fine("a backup of the paths can be planned")}, nil
	}}
}
