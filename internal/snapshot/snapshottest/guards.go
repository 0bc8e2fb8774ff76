package snapshottest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"stillpoint/internal/sys/freeze"
)

// Killed at any step, a process leaves what its guard removes by itself.
func checkGuard(c *C) {
	if !c.host.Guarded {
		c.Skip("skipped: no guard takes away what the provider leaves")
	}
	vs, before, content := c.scene()
	for _, s := range stages {
		p := c.startProcess(vs, "")
		p.runTo(c, s)
		p.kill(c)
		c.cleanedUp(vs, before, content)
		if c.Failed() {
			c.Fatalf("killed when it was %s", s)
		}
	}
}

// A process that is only stopped keeps what it has, and its guard waits for its end.
func checkStopped(c *C) {
	if !c.host.Guarded {
		c.Skip("skipped: no guard takes away what the provider leaves")
	}
	vs, before, content := c.scene()
	p := c.startProcess(vs, "")
	p.runTo(c, shown)
	has := c.hostState(vs)
	c.must(syscall.Kill(p.Pid(), syscall.SIGSTOP))
	time.Sleep(time.Second)
	c.unchanged(vs, has)
	c.noLeftovers(c.host.New(c))
	p.kill(c)
	c.cleanedUp(vs, before, content)
}

// guardPatience is how long a guard may take: it runs programs of the system, on a
// machine that may have much to do. The checks' own tests wait less.
var guardPatience = 2 * time.Minute

// cleanedUp waits until a guard has taken everything away. A new process then finds
// nothing.
func (c *C) cleanedUp(vs []Volume, before string, content []manifest) {
	c.Helper()
	for began := time.Now(); c.hostState(vs) != before; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > guardPatience {
			c.Error("nobody has taken away what the process has left")
			break
		}
	}
	c.noLeftovers(c.host.New(c))
	c.unchanged(vs, before)
	for i, v := range vs {
		c.same("volume", c.describe(v.Dir), content[i])
	}
}

// killAll ends the child and its guards, and does for the volumes what these would
// have done at once: nobody else does.
func (p *process) killAll(c *C, vs []Volume) {
	c.Helper()
	if c.host.Guarded {
		p.killGuards(c)
		defer func() {
			for _, v := range vs {
				if strings.HasPrefix(v.Volume.Source, "/dev/") { // a file system of the test's own
					c.must(thaw(v.Dir))
				}
			}
		}()
	}
	p.kill(c)
}

func thaw(dir string) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := freeze.Thaw(root); err != nil && !errors.Is(err, freeze.ErrNotFrozen) {
		return err
	}
	return nil
}

// killGuards ends the guards of the child, which is as it would be if the memory of
// the machine had become short, or a service were ended with all its processes.
func (p *process) killGuards(c *C) {
	c.Helper()
	for _, pid := range guardsOf(p.Pid()) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			c.Fatal(err)
		}
	}
	for began := time.Now(); len(guardsOf(p.Pid())) > 0; time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			c.Fatal("a guard does not end")
		}
	}
}

// guardsOf are the children of a process that call themselves guards.
func guardsOf(parent int) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		name, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !strings.HasPrefix(string(name), "stillpoint-guard\x00") {
			continue
		}
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil || !strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", parent)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
