package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// Writers are eight threads that change files all the time, in four ways, each
// file opened anew, so that each change makes events while the filter is armed.
type writers struct {
	r    *rig
	quit chan struct{}
	wait sync.WaitGroup

	steps   atomic.Int64
	longest atomic.Int64 // time of a step, in ns
	late    atomic.Int64 // the most by which a thread that only sleeps came too late
}

func (r *rig) write() *writers {
	w := &writers{r: r, quit: make(chan struct{})}
	for i, change := range []func(*os.File) error{plain, direct, appending, mapped, plain, direct, appending, mapped} {
		w.wait.Go(func() { w.run(fmt.Sprintf("%s/w%d-", r.dir, i), change) })
	}
	w.wait.Go(w.sleep)
	r.Cleanup(func() { w.end() })
	soon(r.T, "the writers write", func() bool { return w.steps.Load() > 100 })
	w.longest.Store(0)
	w.late.Store(0)
	return w
}

// turns is how many files each of the writers has at a time.
const turns = 4

func (w *writers) run(prefix string, change func(*os.File) error) {
	for n := 0; ; n++ {
		select {
		case <-w.quit:
			return
		default:
		}
		began := time.Now()
		if err := w.step(prefix, n, change); err != nil {
			w.r.Errorf("a live access failed: %v", err)
			return
		}
		took := int64(time.Since(began))
		for was := w.longest.Load(); took > was && !w.longest.CompareAndSwap(was, took); was = w.longest.Load() {
		}
		w.steps.Add(1)
	}
}

// sleep measures for how long the machine does not let somebody run who could.
func (w *writers) sleep() {
	const nap = 5 * time.Millisecond
	for {
		select {
		case <-w.quit:
			return
		default:
		}
		began := time.Now()
		time.Sleep(nap)
		w.late.Store(max(w.late.Load(), int64(time.Since(began)-nap)))
	}
}

func (w *writers) step(prefix string, n int, change func(*os.File) error) error {
	name := prefix + fmt.Sprint(n)
	if err := os.WriteFile(name, make([]byte, 4096), 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err == nil {
		err = errors.Join(change(f), f.Close())
	}
	if n >= turns {
		err = errors.Join(err, os.Remove(prefix+fmt.Sprint(n-turns)))
	}
	return err
}

// goOn waits until each of the writers must have gone round.
func (w *writers) goOn() {
	w.r.Helper()
	from := w.steps.Load()
	soon(w.r.T, "the writers go on", func() bool { return w.r.Failed() || w.steps.Load() > from+200 })
}

// hands is how many processes have to run, one after the other, until one goes
// on who waits: each of them may be as late as we.
const hands = 4

// within ends the writers and tells whether one step took longer.
func (w *writers) within(limit time.Duration) {
	w.r.Helper()
	w.goOn()
	w.end()
	longest, late := time.Duration(w.longest.Load()), time.Duration(w.late.Load())
	w.r.Logf("%d steps, the longest took %v; one who only sleeps was late by up to %v", w.steps.Load(), longest, late)
	if longest-hands*late > limit {
		w.r.Errorf("somebody waited for %v", longest)
	}
}

func (w *writers) end() {
	select {
	case <-w.quit:
	default:
		close(w.quit)
	}
	w.wait.Wait()
}

func plain(f *os.File) error {
	_, err := f.WriteAt([]byte("x"), 100)
	return err
}

func direct(f *os.File) error {
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(b)
	g, err := os.OpenFile(f.Name(), os.O_RDWR|unix.O_DIRECT, 0)
	if err == nil {
		_, err = g.WriteAt(b, 0)
		err = errors.Join(err, g.Close())
	}
	return err
}

func appending(f *os.File) error {
	g, err := os.OpenFile(f.Name(), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = g.WriteString("more")
		err = errors.Join(err, g.Close())
	}
	return err
}

func mapped(f *os.File) error {
	b, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(b, "stored")
	return unix.Munmap(b)
}
