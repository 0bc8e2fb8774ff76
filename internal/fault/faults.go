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
// the file that STILLPOINT_FAULT_REACHED names. When somebody removes that, it
// waits no longer.
func Point(name string) {
	what, at, _ := strings.Cut(os.Getenv("STILLPOINT_FAULT"), ":")
	if at != name {
		return
	}
	reached := os.Getenv("STILLPOINT_FAULT_REACHED")
	if reached != "" {
		_ = os.WriteFile(reached, []byte(name), 0o600)
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
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if _, err := os.Lstat(reached); reached != "" && err != nil {
				return
			}
		}
	}
}
