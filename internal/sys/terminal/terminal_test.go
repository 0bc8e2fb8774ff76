package terminal

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Only the foreground group of a terminal gets its signals.
func TestSignals(t *testing.T) {
	const marker = "STILLPOINT_TEST_TERMINAL"
	if os.Getenv(marker) != "" {
		fmt.Println("signals", Signals())
		os.Exit(0)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	again := os.Args[0] + " -test.run=^TestSignals$"
	for command, want := range map[string]string{
		"script -qec '" + again + "' /dev/null":                "signals true",
		"script -qec 'setsid -w " + again + "' /dev/null":      "signals false", // no terminal
		`script -qec 'set -m; ` + again + ` & wait' /dev/null`: "signals false", // in the background
	} {
		c := exec.CommandContext(ctx, "sh", "-c", command)
		c.Env = append(os.Environ(), marker+"=1")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		c.WaitDelay = time.Second
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %q, %v; want %s", command, out, err, want)
		}
	}
}
