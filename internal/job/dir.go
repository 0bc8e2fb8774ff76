package job

import (
	"errors"
	"os"
	"path/filepath"

	"stillpoint/internal/problem"
)

// DefaultDir is the folder of the logs: "jobs" in the folder that
// STILLPOINT_STATE names, else in /var/lib/stillpoint for root, else in
// stillpoint below $XDG_STATE_HOME.
func DefaultDir() (string, error) {
	return defaultDir(os.Getenv, os.Geteuid())
}

func defaultDir(getenv func(string) string, uid int) (string, error) {
	if state := getenv("STILLPOINT_STATE"); state != "" {
		abs, err := filepath.Abs(state)
		if err != nil {
			return "", problem.New(problem.StateLost, state, err)
		}
		return filepath.Join(abs, "jobs"), nil
	}
	if uid == 0 {
		return "/var/lib/stillpoint/jobs", nil
	}
	// The XDG Base Directory Specification: relative values are ignored, and
	// ~/.local/state is the default.
	if state := getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "stillpoint", "jobs"), nil
	}
	home := getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", problem.New(problem.StateLost, "", errors.New("none of STILLPOINT_STATE, XDG_STATE_HOME and HOME names a folder for the job logs; set STILLPOINT_STATE to one"))
	}
	return filepath.Join(home, ".local", "state", "stillpoint", "jobs"), nil
}
