package process

import (
	"os/exec"
	"testing"
)

// How a child has ended that was interrupted until then is for who waits for it.
func TestInterruptChild(t *testing.T) {
	for range 50 {
		c := exec.Command("true")
		must(t, c.Start())
		for Interrupt(c.Process.Pid) == nil {
		}
		if err := c.Wait(); err != nil {
			t.Fatalf("it ended with %v", err)
		}
	}
}
