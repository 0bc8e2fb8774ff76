package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"stillpoint/internal/problem"
)

// pressures are the levels above which a host is called busy: the share of the
// last minute, in percent, in which everything that wanted to run waited for
// memory, or for a device ("full", Documentation/accounting/psi.rst).
var pressures = []struct {
	resource, what string
	level          float64
}{
	{"memory", "memory", 5},
	{"io", "a device", 40},
}

// Pressure looks whether the host has little left of memory and of its devices'
// time.
func Pressure(h Host) Check {
	return Check{Name: "load", Look: func(context.Context) ([]Finding, error) {
		var found []Finding
		var shares []string
		for _, p := range pressures {
			share, err := waited(filepath.Join(h.Proc, "pressure", p.resource))
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errOff) {
				return none("this kernel does not tell how much is waited for (CONFIG_PSI)"), nil
			}
			if err != nil {
				return found, err
			}
			shares = append(shares, fmt.Sprintf("%.0f %% for %s", share, p.what))
			if share >= p.level {
				found = append(found, warned(problem.HostBusy, p.resource, "for %.0f %% of the last minute everything waited for %s", share, p.what).
					so("applications rest longer, saving originals takes longer, and a snapshot is lost when it takes too long", "find out what is at work (top, iotop), and run backups when the host is less busy: --quiet waits for that"))
			}
		}
		if len(found) == 0 {
			found = append(found, fine("everything waited for %s in the last minute", strings.Join(shares, ", ")))
		}
		return found, nil
	}}
}

var errOff = errors.New("pressure is not measured")

// waited reads avg60 of the line "full" of a file such as
//
//	some avg10=0.00 avg60=0.12 avg300=0.05 total=123456
//	full avg10=0.00 avg60=0.10 avg300=0.04 total=103456
func waited(path string) (float64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var now, minute float64
		if n, _ := fmt.Sscanf(lines.Text(), "full avg10=%f avg60=%f", &now, &minute); n == 2 {
			return minute, nil
		}
	}
	if err := lines.Err(); err != nil { // EOPNOTSUPP with psi=0
		return 0, errOff
	}
	return 0, problem.Newf(problem.LookFailed, "", "%s has no line \"full\" as expected", path)
}
