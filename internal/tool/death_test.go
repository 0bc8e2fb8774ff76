package tool

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// wholeVariable tells a child of the tests to run a Whole program, and where that says
// that it was asked to end.
const wholeVariable = "TOOL_TEST_WHOLE"

func runWhole(to string) {
	script := `trap 'echo asked >>"$1"; exit' TERM; echo ready >>"$1"; while :; do sleep 0.05; done`
	_, _ = Command{Name: "sh", Args: []string{"-c", script, "sh", to}, Whole: true}.Run(context.Background())
	os.Exit(0)
}

// A Whole program is asked to end when who has started it is killed.
func TestDeath(t *testing.T) {
	to := filepath.Join(t.TempDir(), "says")
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), wholeVariable+"="+to)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	says := func(want string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			is, _ := os.ReadFile(to)
			if string(is) == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("the program says %q, not %q", is, want)
			}
		}
	}
	says("ready\n")
	_ = c.Process.Kill()
	_ = c.Wait()
	says("ready\nasked\n")
}
