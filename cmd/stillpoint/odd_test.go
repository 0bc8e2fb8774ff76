package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"stillpoint/internal/problem"
)

// captures are the commands that watch or freeze what they are given: they get
// only paths that do not exist.
var captures = []string{"agent", "run", "snapshot create", "backup"}

// Whatever a command is given, and wherever its files cannot be: an error that
// reaches the user has a code.
func TestOddInput(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	full := filepath.Join(dir, "full")
	if err := os.MkdirAll(filepath.Join(full, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	worlds := []map[string]string{
		{"STILLPOINT_STATE": dir + "/state", "STILLPOINT_REPO": dir + "/repo", "STILLPOINT_PASSWORD": "x", "STILLPOINT_AGENT": dir + "/socket", "STILLPOINT_CONFIG": "/dev/null"},
		{"STILLPOINT_STATE": "/dev/null/x", "STILLPOINT_REPO": "/dev/null", "STILLPOINT_PASSWORD": "x", "STILLPOINT_AGENT": "/dev/null", "STILLPOINT_CONFIG": "/"},
		{"STILLPOINT_STATE": full, "STILLPOINT_REPO": full, "STILLPOINT_PASSWORD_FILE": full, "STILLPOINT_AGENT": full, "STILLPOINT_CONFIG": dir + "/none", "STILLPOINT_CACHE_DIR": "none"},
		{"STILLPOINT_STATE": dir + "/state", "STILLPOINT_AGENT": strings.Repeat("x", 200), "STILLPOINT_CONFIG": "/dev/null", "STILLPOINT_CACHE_MAX": "none"},
	}
	inputs := [][]string{
		{"/none"}, {"/none/\xff"}, {"--nosuch"}, {"none:/x"}, {"latest:/none"}, {"/none", "/none2", "/none3"}, {"/none", "--", "none"}, {strings.Repeat("/x", 3000)},
		{"/none", "--json"}, {"/none", "--repo", "/proc/self/mem"}, {"/none", "--password-file", "/none"}, {"latest", "--to", "/proc/none"}, {"/none", "--to", "/dev/null/x", "--json"},
	}
	more := [][]string{{}, {""}, {"--json"}}
	for _, words := range leaves(newRoot(&env{}), nil) {
		all := inputs
		if name := strings.Join(words, " "); !slices.Contains(captures, name) {
			all = append(slices.Clone(inputs), more...)
		}
		for i, world := range worlds {
			for _, name := range []string{"STATE", "REPO", "PASSWORD", "PASSWORD_FILE", "AGENT", "CONFIG", "CACHE_DIR", "CACHE_MAX"} {
				t.Setenv("STILLPOINT_"+name, world["STILLPOINT_"+name])
			}
			for _, input := range all {
				oddRun(t, i, append(slices.Clone(words), input...))
			}
		}
	}
}

// oddRun runs one command line in this process.
func oddRun(t *testing.T, world int, args []string) {
	t.Helper()
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer nothing.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	e := &env{stdin: nothing, stdout: &out, stderr: &errs, getenv: os.Getenv}
	code := run(ctx, e, args)
	both := append(out.Bytes(), errs.Bytes()...)
	record(t, args, both)
	if args[0] == "run" && code == 127 { // as a shell has it for a program that is not there
		return
	}
	if ended := endedWith(args, both); code != exitComplete && code != exitExceptions && len(ended) == 0 {
		t.Errorf("world %d: %.200q exits with %d, and names no code:\n%.1000s", world, args, code, both)
	}
}

// leaves are the words of all commands that do something.
func leaves(c *cobra.Command, words []string) (all [][]string) {
	for _, sub := range c.Commands() {
		all = append(all, leaves(sub, append(slices.Clone(words), sub.Name()))...)
	}
	if all == nil {
		all = [][]string{words}
	}
	return all
}

// The last resort: an error that nobody gave a code is shown with one, and fails
// the test that sees it.
func TestUncatalogued(t *testing.T) {
	var errs bytes.Buffer
	(&env{stderr: &errs}).say(context.DeadlineExceeded)
	if !slices.Contains(endedWith(nil, errs.Bytes()), problem.Uncatalogued) {
		t.Errorf("says %q", errs.String())
	}
	if err := note([]string{"backup"}, errs.Bytes()); err == nil {
		t.Error("nobody noticed")
	}
}
