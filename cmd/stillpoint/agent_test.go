package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"stillpoint/internal/scratch"
)

// TestAgentScripts runs what has to do with the agent, each script on a volume
// of its own; see testdata/agent.
func TestAgentScripts(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) { agentScripts(t, fs) })
	}
}

func agentScripts(t *testing.T, fs string) {
	scratch.NeedRoot(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/agent",
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(90 * time.Second),
		Setup: func(e *testscript.Env) error {
			v := scratch.New(e.T().(testing.TB), fs, 400*scratch.MiB)
			if strings.HasSuffix(e.WorkDir, "script-mixed") {
				e.Setenv("BTRFS", scratch.New(e.T().(testing.TB), "btrfs", 256*scratch.MiB).Dir)
			}
			e.Defer(func() { // what a script that failed has left
				for _, dir := range []string{v.Dir + "/b", v.Dir + "/tmp", e.WorkDir + "/mnt", e.WorkDir + "/other"} {
					_ = syscall.Unmount(dir, syscall.MNT_DETACH)
				}
			})
			e.Setenv("FS", fs)
			e.Setenv("FORCE", map[string]string{"ext4": "-F", "xfs": "-f"}[fs])
			e.Setenv("VOL", v.Dir)
			e.Setenv("DEV", v.Devices[0])
			e.Setenv("STILLPOINT_AGENT", filepath.Join(e.WorkDir, "run", "agent.sock"))
			e.Setenv("STILLPOINT_STATE", filepath.Join(e.WorkDir, "state"))
			e.Setenv("STILLPOINT_REPO", filepath.Join(e.WorkDir, "repo"))
			e.Setenv("STILLPOINT_PASSWORD", "a secret")
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  cmdExits,
			"fields": cmdFields,
			"soon":   cmdSoon,
		},
	})
}

// cmdSoon runs a program until it succeeds, or with "!" fails, within 20 s.
func cmdSoon(ts *testscript.TestScript, neg bool, args []string) {
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = ts.Exec(args[0], args[1:]...); (err != nil) == neg {
			return
		}
	}
	ts.Fatalf("not soon: %q: %v", args, err)
}

// Ctrl-C on a terminal reaches the program and us; we wait for what it does. That
// it is not passed on a second time is seen in sys/terminal: two signals at once
// count as one.
func TestRunOnTerminal(t *testing.T) {
	v := scratch.New(t, "ext4", 128*scratch.MiB)
	if err := os.WriteFile(filepath.Join(v.Dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "stillpoint")
	b, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(program, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	count := `n=0; trap 'n=$((n+1)); touch ` + dir + `/asked' INT; touch ` + dir + `/ready; while [ ! -e ` + dir + `/go ]; do sleep 0.1; done; echo $n > ` + dir + `/count`
	// script(1) gives its child a terminal, and passes what it reads itself.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "script", "-qec", `exec "$PROGRAM" run "$VOL" -- sh -c "$COUNT"`, "/dev/null")
	c.Env = append(os.Environ(), "STILLPOINT_AGENT="+dir+"/agent.sock", "COUNT="+count, "PROGRAM="+program, "VOL="+v.Dir)
	keys, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	c.WaitDelay = 5 * time.Second
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	exists := func(name string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("there is no %s", name)
			}
		}
	}
	exists("ready")
	_, err = keys.Write([]byte{3}) // Ctrl-C
	if err != nil {
		t.Fatal(err)
	}
	exists("asked")
	time.Sleep(500 * time.Millisecond) // for a second one
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("run: %v", err)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "count")); string(got) != "1\n" {
		t.Errorf("the program got %q signals", got)
	}
}
