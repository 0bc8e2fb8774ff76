package cow

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
)

// crowdVariable is set in the children of TestCrowd, to the two volumes that
// they take.
const crowdVariable = "STILLPOINT_TEST_CROWD"

// crowdRoom is how many descriptors such a child has.
const crowdRoom = 256

// TestCrowdChild takes snapshots when it is told to, and says what came of it.
func TestCrowdChild(t *testing.T) {
	dirs := os.Getenv(crowdVariable)
	if dirs == "" {
		return // is run by TestCrowd only
	}
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	fail(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: crowdRoom, Max: crowdRoom}))
	p := New(host, Options{})
	var targets []snapshot.Target
	for dir := range strings.SplitSeq(dirs, ":") {
		found, _ := scratch.Find(t, dir)
		fail(p.Watch(t.Context(), found))
		targets = append(targets, snapshot.Target{Volume: found, Paths: []string{"."}})
	}
	fmt.Println("ready")
	for n, in := 0, bufio.NewScanner(os.Stdin); in.Scan(); n++ {
		began := time.Now()
		pending, err := p.Prepare(t.Context(), fmt.Sprint("crowd", n), targets)
		fail(err)
		if err = pending.Hold(t.Context()); err == nil {
			if in.Text() == "crowded" { // that is, stay until everybody is there
				for end := time.Now().Add(window / 2); time.Now().Before(end) && pending.(*set).tooMany() == nil; {
					time.Sleep(time.Millisecond)
				}
			}
			_, err = pending.Commit(t.Context())
		}
		took := time.Since(began)
		err = errors.Join(err, pending.Resume(t.Context()))
		fmt.Println("came", problem.CodeOf(err), took, strings.ReplaceAll(fmt.Sprint(err), "\n", " "))
		fail(pending.Abort(context.Background()))
		for _, s := range pending.(*set).targets {
			fail(s.Release(context.Background()))
		}
	}
	os.Exit(0)
}

// More threads write to two volumes than there are descriptors to hear of them:
// none is denied, none waits until the window is over, and the set is given up
// with their number. When they are fewer, it is taken.
func TestCrowd(t *testing.T) {
	scratch.NeedRoot(t)
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			a, b := scratch.New(t, fs, 400*scratch.MiB), scratch.New(t, fs, 400*scratch.MiB)
			c := exec.Command(os.Args[0], "-test.run=^TestCrowdChild$")
			c.Env = append(os.Environ(), crowdVariable+"="+a.Dir+":"+b.Dir)
			c.Stderr = os.Stderr
			in, err := c.StdinPipe()
			must(t, err)
			out, err := c.StdoutPipe()
			must(t, err)
			must(t, c.Start())
			t.Cleanup(func() { in.Close(); _ = c.Process.Kill(); _ = c.Wait() })
			said := bufio.NewScanner(out)
			expect := func(what string) {
				t.Helper()
				if !said.Scan() || !strings.HasPrefix(said.Text(), what) {
					t.Fatalf("the child says %q, want %q", said.Text(), what)
				}
				t.Log(said.Text())
			}
			expect("ready")
			many := crowdOf(t, crowdRoom*3/4, a.Dir, b.Dir)
			fmt.Fprintln(in, "crowded")
			expect("came " + string(problem.FreezeBlocked))
			if !strings.Contains(said.Text(), "threads waited") {
				t.Error("it does not say for whom")
			}
			many()
			few := crowdOf(t, 4, a.Dir, b.Dir)
			fmt.Fprintln(in, "few")
			expect("came  ")
			few()
			in.Close()
			_, _ = io.Copy(io.Discard, out)
			must(t, c.Wait())
		})
	}
}

// crowdOf lets so many threads write to a file of each directory. stop fails the
// test if one was denied, or waited until the window was over.
func crowdOf(t *testing.T, threads int, dirs ...string) (stop func()) {
	t.Helper()
	var all sync.WaitGroup
	var longest, begun atomic.Int64
	over := make(chan struct{})
	for _, dir := range dirs {
		f, err := os.Create(dir + "/file")
		must(t, err)
		t.Cleanup(func() { f.Close() })
		for i := range threads {
			all.Go(func() {
				for n := 0; ; n++ {
					began := time.Now()
					if _, err := unix.Pwrite(int(f.Fd()), []byte("x"), int64(i)*4096); err != nil {
						t.Errorf("a write failed: %v", err)
						return
					}
					if took := int64(time.Since(began)); took > longest.Load() {
						longest.Store(took) // nearly
					}
					if n == 0 {
						begun.Add(1)
					}
					select {
					case <-over:
						return
					case <-time.After(5 * time.Millisecond):
					}
				}
			})
		}
	}
	waitFor(t, func() bool { return begun.Load() == int64(threads*len(dirs)) || t.Failed() })
	return func() {
		t.Helper()
		close(over)
		all.Wait()
		if d := time.Duration(longest.Load()); d > window*3/4 {
			t.Errorf("a write waited for %v", d)
		} else {
			t.Logf("the longest wait was %v", d)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
