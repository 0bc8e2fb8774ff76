package inode

import (
	"os"
	"os/exec"
	"testing"
)

// testCommand runs one test of this package in another process.
func testCommand(t *testing.T, name string, env ...string) *exec.Cmd {
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+name+"$", "-test.v", "-test.timeout=60s")
	c.Env = append(os.Environ(), env...)
	return c
}
