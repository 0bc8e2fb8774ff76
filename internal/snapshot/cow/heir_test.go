package cow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/holder"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
)

// What the child of TestDeadlock is told: the volume that it holds a snapshot of,
// and the socket of its holder.
const (
	deadlockDir  = "STILLPOINT_TEST_DEADLOCK"
	deadlockPath = "STILLPOINT_TEST_DEADLOCK_PATH"
)

// TestDeadlocked is a process that holds a snapshot and then hangs.
func TestDeadlocked(t *testing.T) {
	dir := os.Getenv(deadlockDir)
	if dir == "" {
		return // is run by TestDeadlock only
	}
	check := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	found, _ := scratch.Find(t, dir)
	p := New(host, Options{})
	check(p.Watch(t.Context(), found))
	h, err := holder.Start(os.Getenv(deadlockPath), time.Minute)
	check(err)
	check(p.Bequeath(h))
	go func() {
		for range time.Tick(holder.Heart / 10) {
			if pulse := p.Pulse(); pulse.Well {
				h.Beat(pulse)
			}
		}
	}()
	pending, err := p.Prepare(t.Context(), "deadlock", []snapshot.Target{{Volume: found, Paths: []string{"."}}})
	check(err)
	err = pending.Hold(t.Context())
	if err == nil {
		_, err = pending.Commit(t.Context())
	}
	check(errors.Join(err, pending.Resume(t.Context())))
	fmt.Println("ready")
	_, err = os.Stdin.Read(make([]byte, 1))
	check(err)
	f := p.filters[found.ID]
	f.turns.mu.Lock()
	f.marks.Lock()
	f.notes.Lock()
	select {}
}

// The process that holds a snapshot hangs, watch and all: it is ended, nobody
// waits for long, and the filter is there for the next.
func TestDeadlock(t *testing.T) {
	each(t, func(t *testing.T, r *rig) { r.deadlock() })
}

func (r *rig) deadlock() {
	r.must(os.WriteFile(r.path("file"), bytes.Repeat([]byte("x"), 1<<20), 0o644))
	path := filepath.Join(r.TempDir(), "holder")
	c := exec.Command(os.Args[0], "-test.run=^TestDeadlocked$")
	c.Env = append(os.Environ(), deadlockDir+"="+r.dir, deadlockPath+"="+path)
	in, err := c.StdinPipe()
	r.must(err)
	out, err := c.StdoutPipe()
	r.must(err)
	r.must(c.Start())
	ended := make(chan error, 1)
	line := make([]byte, 200)
	n, _ := out.Read(line)
	go func() {
		_, _ = io.Copy(io.Discard, out)
		ended <- c.Wait()
	}()
	r.Cleanup(func() { _ = c.Process.Kill() })
	if !strings.HasPrefix(string(line[:n]), "ready") {
		r.Fatalf("the child says %q", line[:n])
	}
	_, err = in.Write([]byte("\n"))
	r.must(err)
	r.Logf("the longest access took %v", r.accessUntil(ended))
	e, err := holder.Adopt(context.Background(), path)
	r.must(err)
	taken, err := r.p.Inherit(r.Context(), e.Filters)
	r.must(errors.Join(err, e.Taken()))
	if len(taken) != 1 || taken[0] != r.target.Volume.ID {
		r.Errorf("taken over: %v", taken)
	}
	if w := r.p.Watched(); len(w) != 1 || !w[0].Inherited || w[0].Armed {
		r.Errorf("watched is %+v", w)
	}
	r.must(r.p.Unwatch(taken[0]))
}

// accessUntil opens and changes a file all the time, until a process that is to
// be killed has ended.
func (r *rig) accessUntil(ended <-chan error) (longest time.Duration) {
	timed := func(access func() error) {
		began := time.Now()
		r.must(access())
		longest = max(longest, time.Since(began))
	}
	for i, end := int64(0), time.Now().Add(20*time.Second); ; i++ {
		var f *os.File
		// Opened anew, so that it has events whatever was before.
		timed(func() (err error) { f, err = os.OpenFile(r.path("file"), os.O_RDWR, 0); return err })
		timed(func() error { _, err := f.WriteAt([]byte{byte(i)}, i*4096%(1<<20)); return err })
		r.must(f.Close())
		select {
		case err := <-ended:
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				r.Errorf("the child ended with %v", err)
			}
			if longest > 2*heart {
				r.Errorf("an access took %v", longest)
			}
			return longest
		default:
			if time.Now().After(end) {
				r.Fatal("the child lives")
			}
		}
	}
}
