//go:build faults

package fault

import (
	"os"
	"strings"
	"syscall"
	"time"
)

// Point kills the process with SIGKILL when STILLPOINT_FAULT is "kill:NAME",
// and waits for STILLPOINT_FAULT_WAIT (a minute) when it is "wait:NAME", so
// that a test can look at the host or send a signal; before that it creates
// the file that STILLPOINT_FAULT_REACHED names.
func Point(name string) {
	what, at, _ := strings.Cut(os.Getenv("STILLPOINT_FAULT"), ":")
	if at != name {
		return
	}
	if f := os.Getenv("STILLPOINT_FAULT_REACHED"); f != "" {
		_ = os.WriteFile(f, []byte(name), 0o600)
	}
	switch what {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "wait":
		d, err := time.ParseDuration(os.Getenv("STILLPOINT_FAULT_WAIT"))
		if err != nil {
			d = time.Minute
		}
		time.Sleep(d)
	}
}
