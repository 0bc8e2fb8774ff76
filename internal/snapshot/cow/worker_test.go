package cow

import (
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/process"
	"stillpoint/internal/sys/writing"
)

// workerVariable is set in the children of TestSpliceByWorker, to how they name
// the file.
const workerVariable = "STILLPOINT_TEST_WORKER"

// TestSpliceByWorkerChild has io_uring splice from the pipe 3 to the file 4.
func TestSpliceByWorkerChild(t *testing.T) {
	how := os.Getenv(workerVariable)
	if how == "" {
		return // is run by TestSpliceByWorker only
	}
	r, err := writing.NewRing(false)
	must(t, err)
	defer r.Close()
	if how == "descriptor" {
		must(t, r.Splice(4, 0, 3, 7, 0))
		return
	}
	must(t, r.Register(4))
	must(t, os.NewFile(4, "file").Close())
	must(t, r.Splice(0, 0, 3, 7, writing.Registered))
}

// A splice from an empty pipe by a worker of io_uring would keep a freeze waiting
// for ever, and nobody can end it: the set is refused by its name, nobody waits,
// and when the splice has ended there are snapshots again.
func TestSpliceByWorker(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for _, how := range []string{"descriptor", "registered"} {
			r.must(os.WriteFile(r.path("other"), []byte("other"), 0o644))
			f, err := os.Create(r.path("file"))
			r.must(err)
			c := exec.Command(os.Args[0], "-test.run=^TestSpliceByWorkerChild$")
			in, out, err := os.Pipe()
			r.must(err)
			c.ExtraFiles = []*os.File{in, f}
			c.Env = append(os.Environ(), workerVariable+"="+how)
			r.must(c.Start())
			in.Close()
			t.Cleanup(func() { out.Close(); _ = c.Process.Kill(); _ = c.Wait() }) // the pipe first: nothing else ends it
			defer time.AfterFunc(10*time.Second, func() { out.Close() }).Stop()   // or a failure would hang
			r.must(f.Close())
			waitFor(t, func() bool {
				stuck, err := process.StuckWorkers()
				return err == nil && len(stuck) == 1 && stuck[0].PID == c.Process.Pid
			})
			longest := r.longest(func() {
				began := time.Now()
				_, err = r.try(nil)
				if problem.CodeOf(err) != problem.FreezeBlocked || !strings.Contains(err.Error(), "process "+itoa(c.Process.Pid)) {
					t.Errorf("%s: %v", how, err)
				}
				t.Logf("%s: after %v: %v", how, time.Since(began), err)
			})
			if longest > window/2 {
				t.Errorf("%s: a write waited for %v", how, longest)
			}
			_, err = out.WriteString("at last")
			r.must(err)
			r.must(c.Wait())
			s := r.take(nil)
			if b := r.read(s, "file"); string(b) != "at last" {
				t.Errorf("%s: the file reads %q", how, b)
			}
			r.must(s.Release(t.Context()))
		}
	})
}

// longest is how long a write waited at most while f ran.
func (r *rig) longest(f func()) time.Duration {
	r.Helper()
	file, err := os.Create(r.path("waits"))
	r.must(err)
	defer file.Close()
	var longest atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			began := time.Now()
			if _, err := file.WriteAt([]byte("x"), 0); err != nil {
				r.Errorf("a write failed: %v", err)
			}
			longest.Store(max(longest.Load(), int64(time.Since(began))))
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	f()
	close(stop)
	<-stopped
	return time.Duration(longest.Load())
}
