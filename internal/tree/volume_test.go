package tree

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/scratch"
)

// run runs a program and returns its output; whatever goes wrong ends the test.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := tryRun(t, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type runError struct {
	command string
	err     error
	stderr  string
}

func (e *runError) Error() string { return e.command + ": " + e.err.Error() + ": " + e.stderr }

func tryRun(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	var out, errout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errout
	timer := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err != nil {
		return out.String(), &runError{name + " " + strings.Join(args, " "), err, errout.String()}
	}
	return out.String(), nil
}

// remount drops everything that is only in memory.
func remount(t testing.TB, v *scratch.Volume) {
	t.Helper()
	run(t, "umount", v.Dir)
	v.Dir = v.Mount(t, "")
}

// mount mounts something until the test ends; the last argument is where.
func mount(t *testing.T, args ...string) {
	t.Helper()
	run(t, "mount", args...)
	t.Cleanup(func() { run(t, "umount", args[len(args)-1]) })
}

func mounted(path string) bool {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	return strings.Contains(string(b), " "+path+" ")
}

// eachFS runs a test on an empty volume of each file system.
func eachFS(t *testing.T, test func(t *testing.T, v *scratch.Volume)) {
	for fs, format := range map[string][]string{
		"btrfs": nil,
		"ext4":  {"-O", "ea_inode"}, // allows large extended attributes
		"xfs":   nil,
	} {
		t.Run(fs, func(t *testing.T) { test(t, scratch.New(t, fs, scratch.GiB, scratch.Format(format...))) })
	}
}
