package doctor

import (
	"context"
	"fmt"

	"stillpoint/internal/problem"
)

// A Left is what a killed run left.
type Left struct {
	Text string
	Code problem.Code // why it is not removed; empty where it is
}

// Leftovers looks for what killed runs left. clean removes it, and says what.
func Leftovers(list, clean func(ctx context.Context) ([]Left, error)) Check {
	return Check{Name: "leftovers", Limit: 2 * usualLimit, Look: func(ctx context.Context) ([]Finding, error) {
		all, err := list(ctx)
		var fs []Finding
		ours := 0
		for _, l := range all {
			if l.Code == "" {
				ours++
				fs = append(fs, warned(problem.LeftBehind, "", "%s", l.Text).
					so("it takes room until the next backup or `stillpoint clean` removes it", "stillpoint clean, or stillpoint doctor --fix"))
				continue
			}
			fs = append(fs, warned(l.Code, "", "%s", l.Text).so("it is left alone", "see `stillpoint explain "+string(l.Code)+"`"))
		}
		if ours > 0 {
			once := mending(clean)
			for i := range fs {
				if fs[i].Code == problem.LeftBehind {
					fs[i].Mend = once
				}
			}
		}
		if len(fs) == 0 && err == nil {
			fs = append(fs, fine("nothing was left behind"))
		}
		return fs, err
	}}
}

// mending cleans once, however many findings ask for it.
func mending(clean func(ctx context.Context) ([]Left, error)) func(ctx context.Context) (string, error) {
	var did string
	var err error
	done := false
	return func(ctx context.Context) (string, error) {
		if done {
			return did, err
		}
		done = true
		var all []Left
		all, err = clean(ctx)
		for _, l := range all {
			if l.Code != "" && l.Code != problem.LeftoverForeign && err == nil {
				err = problem.Newf(l.Code, "", "%s", l.Text)
			}
		}
		did = fmt.Sprintf("cleaned up: %d found", len(all))
		return did, err
	}
}
