package doctor

import (
	"context"
	"time"

	"stillpoint/internal/problem"
)

// A Last is something that this host did before, by its clock then.
type Last struct {
	What string    // "backup 1234"; empty where there is nothing
	At   time.Time // when
}

// early is how far in the future the past may be: clocks are set by a little
// every day.
const early = time.Minute

// Clock looks whether the clock is kept right, and whether it was set back since
// the last backup. synchronised may be nil where that is of no interest.
func Clock(now time.Time, last Last, synchronised func() (bool, error)) Check {
	return Check{Name: "clock", Look: func(context.Context) ([]Finding, error) {
		if ahead := last.At.Sub(now); last.What != "" && ahead > early {
			return []Finding{warned(problem.ClockWrong, last.What, "is of %s, and now it is %s: the clock was set back by %s or more, or ran ahead then",
				last.At.Format(time.RFC3339), now.Format(time.RFC3339), ahead.Round(time.Second)).
				so("the times of backups are not in the order in which they were made, so whatever chooses by time, such as kopia's retention, chooses wrongly", "set the clock right, and have a time service keep it so: timedatectl set-ntp true")}, nil
		}
		if synchronised != nil {
			right, err := synchronised()
			if err != nil {
				return nil, err
			}
			if !right {
				return []Finding{warned(problem.ClockWrong, "", "no time service keeps the clock right, as far as the kernel knows").
					so("the times of backups, and of jobs, may be wrong", "timedatectl set-ntp true, or run chrony; in a virtual machine that gets its time from the host this can be as it should")}, nil
			}
		}
		return []Finding{fine("nothing is of the future")}, nil
	}}
}
