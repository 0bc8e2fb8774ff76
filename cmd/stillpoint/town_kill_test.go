package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/job"
)

// At a kill all locks of ours are gone at once, but for the pause of Redis, which
// ends a second after we have asked for it last.
const pause = time.Second

// window is how long applications may rest where a backup is stopped. The others have
// what they have by default: they are to succeed, on a busy host, too.
const window = 3 * time.Second

// policies are those of a town.
const policies = `writers:
  retries: 0
  postgresql: {policy: fail}
  mariadb: {policy: fail}
  redis: {policy: fail}
`

// TestTown ends and stops backups while clients of three servers work. They go
// on, nothing is locked, and nothing is left; and a backup after all that is as
// good as any.
func TestTown(t *testing.T) {
	w := newTown(t, policies)
	for _, point := range fault.Points {
		of, _, _ := strings.Cut(point, ":")
		passed := of != "btrfs" && of != "restore"
		if of == "capture" || passed && os.Getenv("STILLPOINT_TEST_CAPTURES") != "" {
			t.Run("killed/"+point, func(t *testing.T) { w.in(t).isKilled(point) })
		}
	}
	for _, point := range []string{"capture:at-rest", "capture:held"} {
		t.Run("stopped/"+point, func(t *testing.T) { w.in(t).isStopped(point) })
	}
	rep := w.report(append([]string{"backup", "--require", "application", "--json"}, w.dirs...)...)
	if rep.Level != job.Application || rep.Status != job.Complete || len(rep.Applications) != 3 {
		t.Errorf("%+v", rep)
	}
	for _, a := range rep.Applications {
		if !a.AtRest {
			t.Errorf("%+v", a)
		}
	}
	w.clear()
}

// isKilled kills a backup with -9 at a step of it.
func (w *town) isKilled(point string) {
	w.killed(point, append([]string{"backup", "--checkpoint", "1ms"}, w.dirs...)...)
	w.goesOn(pause + patience)
	w.clear()
}

// isStopped stops a backup while it keeps applications at rest or holds the
// volumes. All go on when the window is over, while it is stopped still; and when
// it goes on, it says that it has failed.
func (w *town) isStopped(point string) {
	t := w.t
	var out strings.Builder
	config := filepath.Join(t.TempDir(), "config.yaml")
	need(t, os.WriteFile(config, fmt.Appendf(nil, "%s  window: %s\n", policies, window), 0o644))
	backup, reached, wait := w.reaches(point, config, &out)
	need(t, backup.Signal(syscall.SIGSTOP))
	w.goesOn(window + patience)
	w.banks[1].free(t) // PostgreSQL has a session of ours still, which holds nothing
	need(t, os.Remove(reached))
	need(t, backup.Signal(syscall.SIGCONT))
	if err := wait(); err == nil {
		t.Errorf("it does not fail: %s", out.String())
	}
	var rep job.Report
	need(t, json.Unmarshal([]byte(out.String()), &rep))
	t.Logf("%s: %s", rep.Code, rep.Text)
	if rep.Status != job.Failed || rep.Backup != "" {
		t.Errorf("%+v", rep)
	}
	w.clear()
}
