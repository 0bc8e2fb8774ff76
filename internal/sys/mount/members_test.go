package mount

import (
	"os/exec"
	"syscall"
	"testing"
)

// What lives in a namespace gets a signal, and nobody else.
func TestSignal(t *testing.T) {
	needRoot(t)
	p, err := NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ns, err := p.Namespace()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if n, err := Signal(ns, syscall.SIGTERM); n != 0 || err != nil {
		t.Errorf("nobody lives there: %d, %v", n, err)
	}
	inside, outside := exec.Command("sleep", "600"), exec.Command("sleep", "600")
	if err := p.Do(inside.Start); err != nil {
		t.Fatal(err)
	}
	if err := outside.Start(); err != nil {
		t.Fatal(err)
	}
	if n, err := Signal(ns, syscall.SIGTERM); n != 1 || err != nil {
		t.Errorf("sent to %d, %v", n, err)
	}
	_ = inside.Wait()
	if s := inside.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGTERM {
		t.Errorf("who lives there ended by %v", s)
	}
	if err := outside.Process.Kill(); err != nil { // it has not ended
		t.Error(err)
	}
	_ = outside.Wait()
	if s := outside.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL {
		t.Errorf("who does not ended by %v", s)
	}
}
