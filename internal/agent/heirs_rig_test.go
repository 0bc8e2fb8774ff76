package agent

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow"
)

// What a child of these tests is, which is an agent: the path that it watches,
// its socket, and how long a holder may be alone.
const (
	heirsPath   = "STILLPOINT_TEST_AGENT"
	heirsSocket = "STILLPOINT_TEST_SOCKET"
	heirsAlone  = "STILLPOINT_TEST_ALONE"
)

// heirsMain is the child. SIGUSR1 restarts it.
func heirsMain() {
	path := os.Getenv(heirsPath)
	if path == "" {
		return
	}
	alone, _ := time.ParseDuration(os.Getenv(heirsAlone))
	go func() { // the test has ended, however that came
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(2)
	}()
	ctx, cancel := context.WithCancelCause(context.Background())
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGUSR1)
	go func() {
		if <-asked == syscall.SIGUSR1 {
			cancel(ErrRestart)
		}
		cancel(nil)
	}()
	err := Run(ctx, Options{
		Socket: os.Getenv(heirsSocket), Paths: []string{path}, Host: hostTable, Alone: alone,
		Providers: []snapshot.Provider{cow.New(hostTable, cow.Options{})},
		Log:       slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Ready:     func() { fmt.Fprintln(os.Stderr, "ready") },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "ended with", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// onVolumes runs a test on both file systems.
func onVolumes(t *testing.T, run func(r *rig)) {
	scratch.NeedRoot(t)
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			v := scratch.New(t, fs, 400*scratch.MiB)
			run(&rig{T: t, volume: v, dir: v.Dir, socket: filepath.Join(t.TempDir(), "s")})
		})
	}
}

// A rig is a volume and its agents.
type rig struct {
	*testing.T
	volume *scratch.Volume
	dir    string // what is watched
	socket string
	alone  string
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// An aged is an agent that can be killed.
type aged struct {
	*Control
	r      *rig
	cmd    *exec.Cmd
	log    *lines
	ended  chan struct{}
	holder int
	since  time.Time // there is the filter
}

// start starts an agent, and returns when it is ready.
func (r *rig) start() *aged {
	r.Helper()
	a := &aged{Control: NewControl(r.socket), r: r, cmd: exec.Command("/proc/self/exe"), log: &lines{}, ended: make(chan struct{})}
	a.cmd.Env = append(os.Environ(), heirsPath+"="+r.dir, heirsSocket+"="+r.socket, heirsAlone+"="+r.alone)
	out, err := a.cmd.StderrPipe()
	r.must(err)
	_, err = a.cmd.StdinPipe() // which ends with us
	r.must(err)
	r.must(a.cmd.Start())
	ready := make(chan struct{})
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			fmt.Fprintln(a.log, s.Text())
			if s.Text() == "ready" {
				close(ready)
			}
		}
		_ = a.cmd.Wait()
		close(a.ended)
	}()
	r.Cleanup(func() {
		_ = a.cmd.Process.Kill()
		<-a.ended
		if r.Failed() {
			r.Logf("agent %d:\n%s", a.cmd.Process.Pid, a.log.b.String())
		}
		if a.holder > 0 { // of an agent that was killed before the next one came
			_ = syscall.Kill(a.holder, syscall.SIGCONT)
			if alive(a.holder) && isHolder(a.holder) {
				_ = syscall.Kill(a.holder, syscall.SIGKILL)
			}
			r.gone(a.holder)
		}
	})
	select {
	case <-ready:
	case <-a.ended:
		r.Fatalf("the agent ended:\n%s", a.log.b.String())
	case <-time.After(30 * time.Second):
		r.Fatal("the agent is not ready")
	}
	s := a.status()
	if s.Holder.PID == 0 || len(s.Volumes) != 1 || s.Unlocked != "" || s.Holder.Unlocked != "" {
		r.Fatalf("the agent is ready, and %+v, holder %+v", s, s.Holder)
	}
	a.holder, a.since = s.Holder.PID, s.Volumes[0].Since
	return a
}

func (a *aged) status() Status {
	a.r.Helper()
	s, err := a.Status(a.r.Context())
	a.r.must(err)
	return s
}

// take lets the agent keep a snapshot, so that it has armed its filter.
func (a *aged) take() string {
	a.r.Helper()
	k, err := a.Create(a.r.Context(), []string{a.r.dir})
	a.r.must(err)
	return k.ID
}

// waitEnd waits for the agent's end, and returns how it was.
func (a *aged) waitEnd() *os.ProcessState {
	a.r.Helper()
	select {
	case <-a.ended:
	case <-time.After(20 * time.Second):
		a.r.Fatal("the agent has not ended")
	}
	return a.cmd.ProcessState
}

// stop ends the agent as systemctl stop does.
func (a *aged) stop() {
	a.r.Helper()
	a.r.must(a.cmd.Process.Signal(syscall.SIGTERM))
	if s := a.waitEnd(); !s.Success() {
		a.r.Errorf("the agent ends with %v", s)
	}
	a.r.gone(a.holder)
	if left, _ := filepath.Glob(a.r.socket + "*"); len(left) != 1 { // the lock
		a.r.Errorf("left: %q", left)
	}
}

// gone waits until a process has ended.
func (r *rig) gone(pid int) {
	r.Helper()
	soon(r.T, fmt.Sprintf("process %d has ended", pid), func() bool { return !alive(pid) })
}

// alive tells whether a process runs. One whose parent has not looked yet is a
// zombie without other threads.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err == nil && (!strings.Contains(string(b), ") Z ") || len(threads) > 1)
}

func isHolder(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.HasPrefix(string(b), "stillpoint-holder")
}
