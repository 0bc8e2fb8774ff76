package tree

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestMain runs the tests and fails when they leave descriptors open. The same
// program is also what some of them start and kill.
func TestMain(m *testing.M) {
	if role := os.Getenv("STILLPOINT_TREE_TEST_ROLE"); role != "" {
		os.Exit(play(role))
	}
	before := openFiles()
	code := m.Run()
	for fd, what := range openFiles() {
		if before[fd] != what && !strings.Contains(what, "anon_inode") && !strings.HasPrefix(what, "pipe:") {
			fmt.Fprintf(os.Stderr, "descriptor %s of %s was left open\n", fd, what)
			code = 1
		}
	}
	os.Exit(code)
}

func openFiles() map[string]string {
	open := map[string]string{}
	list, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range list {
		if what, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			open[fd.Name()] = what
		}
	}
	return open
}
