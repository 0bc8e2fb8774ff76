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

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
)

// holderVariable is set in the children of TestServerComesFirst, to the volume
// that they hold a snapshot of.
const holderVariable = "STILLPOINT_TEST_HOLDER"

// TestHolder is a process that holds a snapshot until it is ended.
func TestHolder(t *testing.T) {
	dir := os.Getenv(holderVariable)
	if dir == "" {
		return // is run by TestServerComesFirst only
	}
	found, _ := scratch.Find(t, dir)
	p := New(host, Options{})
	if dir := os.Getenv(holderCache); dir != "" {
		there, _ := scratch.Find(t, dir)
		p.o.Cache.Named = []cachefile.Named{{Dir: dir, Volume: there.ID}}
		if err := p.Watch(t.Context(), found); err != nil { // so the filter is older than the cache file
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	pending, err := p.Prepare(t.Context(), "holder", []snapshot.Target{{Volume: found, Paths: []string{"."}}})
	if err == nil {
		err = pending.Hold(t.Context())
	}
	var snaps []snapshot.Snapshot
	if err == nil {
		snaps, err = pending.Commit(t.Context())
	}
	if err = errors.Join(err, pending.Resume(t.Context())); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	_ = os.WriteFile("/proc/self/comm", []byte("holder"), 0)
	fmt.Println("root", snaps[0].Root())
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// The process that holds a snapshot is stopped, or killed: who writes waits for
// a second at most, no write fails, and nothing is left.
func TestServerComesFirst(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
			r.must(os.WriteFile(r.path("file"), bytes.Repeat([]byte("x"), 1<<20), 0o644))
			f, err := os.OpenFile(r.path("file"), os.O_RDWR, 0)
			r.must(err)
			c := exec.Command(os.Args[0], "-test.run=^TestHolder$")
			c.Env = append(os.Environ(), holderVariable+"="+r.dir)
			in, err := c.StdinPipe()
			r.must(err)
			out, err := c.StdoutPipe()
			r.must(err)
			r.must(c.Start())
			line := make([]byte, 200)
			n, _ := out.Read(line)
			if !strings.HasPrefix(string(line[:n]), "root ") {
				t.Fatalf("the holder says %q", line[:n])
			}
			r.must(c.Process.Signal(signal))
			longest := time.Duration(0)
			end := time.Now().Add(2 * time.Second)
			for i := int64(0); time.Now().Before(end); i++ {
				// Opened anew, so that it has events whatever was before.
				began := time.Now()
				g, err := os.OpenFile(r.path("file"), os.O_RDWR, 0)
				r.must(err)
				_, err = g.WriteAt([]byte{byte(i)}, i*4096%(1<<20))
				r.must(errors.Join(err, g.Close()))
				longest = max(longest, time.Since(began))
			}
			if longest > 1500*time.Millisecond {
				t.Errorf("%v: a write waited for %v", signal, longest)
			}
			t.Logf("%v: the longest wait was %v", signal, longest)
			in.Close()
			err = c.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Errorf("%v: the holder ended with %v", signal, err)
			}
			r.must(f.Close())
			if left, err := exec.Command("pgrep", "-f", "stillpoint-guard").Output(); err == nil {
				time.Sleep(200 * time.Millisecond)
				if again, err := exec.Command("pgrep", "-f", "stillpoint-guard").Output(); err == nil && string(again) == string(left) {
					t.Logf("guards of other tests, or left: %s", again)
				}
			}
		}
	})
}

// A full cache file costs the snapshot, and nothing else.
func TestCacheFull(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.p.o.Cache.Maximum = cachefile.Bytes(cachefile.Least)
		content := bytes.Repeat([]byte("original"), cachefile.Least/8+1<<20)
		r.must(os.WriteFile(r.path("file"), content, 0o644))
		s := r.take(nil)
		f, err := os.OpenFile(r.path("file"), os.O_RDWR, 0)
		r.must(err)
		defer f.Close()
		for at := 0; at < len(content); at += 1 << 20 {
			_, err := f.WriteAt(bytes.Repeat([]byte("changed!"), min(1<<20, len(content)-at)/8), int64(at))
			r.must(err)
		}
		if code := problem.CodeOf(s.Err()); code != problem.CacheFull {
			t.Errorf("Err is %v", s.Err())
		}
		if _, err := os.ReadFile(filepath.Join(s.Root(), "file")); err == nil {
			t.Error("a lost snapshot can be read")
		}
		r.must(s.Release(context.Background()))
	})
}

// A set that is held and not resumed in time lets everybody go on, and is none.
func TestWindow(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.must(os.WriteFile(r.path("file"), []byte("before"), 0o644))
		ids++
		pending, err := r.p.Prepare(t.Context(), "window"+itoa(ids), []snapshot.Target{r.target})
		r.must(err)
		defer func() { r.must(pending.Abort(context.Background())) }()
		f, err := os.OpenFile(r.path("file"), os.O_RDWR, 0)
		r.must(err)
		defer f.Close()
		r.must(pending.Hold(t.Context()))
		_, err = f.WriteAt([]byte("after "), 0)
		r.must(err)
		if took := time.Since(pending.(*set).targets[0].shut); took < window*9/10 || took > window+time.Second {
			t.Errorf("a write waited until %v after the gate was shut", took)
		}
		if _, err := pending.Commit(t.Context()); problem.CodeOf(err) != problem.FreezeBlocked {
			t.Errorf("Commit after the window: %v", err)
		}
		r.must(pending.Resume(t.Context()))
	})
}
