package cow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow/hot"
)

// A program writes to a directory of its own for as long as the test runs. A
// snapshot has to show it at one moment.
type program interface {
	start(r *rig, dir string)

	// before and after enclose the instant: what is written when before is
	// called is in the snapshot, what is not begun when after is called is not.
	before(r *rig)
	after(r *rig)

	// check is nil when dir, a copy of the program's directory in the
	// snapshot, is such a moment.
	check(ctx context.Context, dir string) error
}

// captures is how many snapshots of each kind the tests take: few, or what
// STILLPOINT_TEST_CAPTURES says.
func captures(few int) int {
	if n, err := strconv.Atoi(os.Getenv("STILLPOINT_TEST_CAPTURES")); err == nil {
		return n
	}
	return few
}

// underWriters takes snapshots in a row while programs write that were started
// before the filter and after it.
func underWriters(t *testing.T, programs map[string]func() program) {
	each(t, func(t *testing.T, r *rig) {
		r.p.o.Cache.Maximum = cachefile.Bytes(1 << 30) // they write as fast as they can
		running := map[string]program{}
		start := func(when string) {
			for name, made := range programs {
				dir := name + "-" + when
				r.must(os.Mkdir(r.path(dir), 0o755))
				p := made()
				p.start(r, r.path(dir))
				running[dir] = p
			}
		}
		start("hot")
		f, err := r.p.acquire(r.target.Volume)
		r.must(err)
		t.Cleanup(func() { r.must(r.p.giveBack(r.target.Volume.ID, f)) })
		start("shielded")
		var longest, waited, saved, kept = time.Duration(0), time.Duration(0), int64(0), 0
		for n := range captures(3) {
			time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
			s := r.captureOf(n, running)
			longest, saved = max(longest, s.held), max(saved, s.Cached())
			kept += len(inodes(s.hot))
			for _, p := range running {
				if c, ok := p.(*child); ok {
					waited = max(waited, c.within(r))
				}
			}
			if t.Failed() {
				t.Fatalf("capture %d", n)
			}
		}
		t.Logf("%d captures; writes suspended for %v at most, the longest step took %v, %d MiB in the cache file at most, %d hot files on average",
			captures(3), longest, waited, saved>>20, kept/captures(3))
	})
}

// captureOf takes one snapshot and looks at it, after some time in which the
// programs change more.
func (r *rig) captureOf(n int, running map[string]program) *target {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Minute)
	defer cancel()
	pending, err := r.p.Prepare(ctx, fmt.Sprint("writers", n), []snapshot.Target{r.target})
	r.must(err)
	defer func() { r.must(pending.Abort(context.Background())) }()
	for _, p := range running {
		p.before(r)
	}
	err = pending.Hold(ctx)
	var snaps []snapshot.Snapshot
	if err == nil {
		snaps, err = pending.Commit(ctx)
	}
	if rerr := pending.Resume(ctx); err == nil {
		err = rerr
	}
	r.must(err)
	for _, p := range running {
		p.after(r)
	}
	s := snaps[0].(*target)
	defer func() { r.must(s.Release(context.Background())) }()
	time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
	copied := r.copyOf(ctx, s, slices.Sorted(maps.Keys(running)))
	for _, g := range s.Gaps() {
		r.Errorf("gap: %+v", g)
	}
	r.must(s.Err())
	var all sync.WaitGroup
	for name, p := range running {
		all.Go(func() {
			if err := p.check(ctx, filepath.Join(copied, name)); err != nil {
				r.Errorf("capture %d: %s: %v", n, name, err)
			}
		})
	}
	all.Wait()
	if !r.Failed() {
		r.must(os.RemoveAll(copied))
	}
	return s
}

// copyOf copies directories out of the snapshot, to where databases can be
// opened without waiting for a disk.
func (r *rig) copyOf(ctx context.Context, s *target, dirs []string) string {
	r.Helper()
	copied, err := os.MkdirTemp("/dev/shm", "stillpoint-test-")
	r.must(err)
	r.Cleanup(func() { _ = os.RemoveAll(copied) })
	r.must(os.Chmod(copied, 0o755))
	for _, d := range dirs {
		if out, err := exec.CommandContext(ctx, "cp", "-a", s.Root()+"/"+d, copied).CombinedOutput(); err != nil {
			r.Errorf("%s cannot be copied: %v: %s", d, err, out)
		}
	}
	return copied
}

// Files of numbered records, and names that come and go all the time.
func TestRecords(t *testing.T) {
	underWriters(t, map[string]func() program{
		"records": func() program { return &child{kind: "records", look: lookAtRecords} },
		"names":   func() program { return &child{kind: "names", look: lookAtNames} },
	})
}

const (
	writerVariable  = "STILLPOINT_TEST_WRITER" // what a child does
	counterVariable = "STILLPOINT_TEST_COUNTER"
)

// A child is a process that makes numbered steps one after the other and
// counts them in memory that it shares with the test.
type child struct {
	kind     string
	look     func(dir string, least, most uint64) error
	process  *exec.Cmd
	counter  *counter
	from, to uint64
}

func (c *child) start(r *rig, dir string) {
	path := filepath.Join(r.TempDir(), "counter")
	r.must(os.WriteFile(path, make([]byte, 4096), 0o600))
	c.counter = openCounter(path)
	c.process = exec.Command(os.Args[0], "-test.run=^TestWriterChild$")
	c.process.Dir = dir
	c.process.Env = append(os.Environ(), writerVariable+"="+c.kind, counterVariable+"="+path)
	c.process.Stderr = os.Stderr
	in, err := c.process.StdinPipe() // whose end is the child's
	r.must(err)
	r.must(c.process.Start())
	r.Cleanup(func() { _ = c.process.Process.Kill(); _ = c.process.Wait(); in.Close() })
	waitFor(r.T, func() bool { return c.counter.done.Load() > 500 })
}

func (c *child) before(*rig) {
	c.from = c.counter.done.Load()
	c.counter.longest.Store(0)
}

func (c *child) after(r *rig) {
	c.to = c.counter.begun.Load()
	if c.to == c.from && c.counter.stuck() {
		r.Errorf("%s makes no steps any more", c.kind)
	}
}

// within fails when a step since before took longer than anybody may be kept.
// A step is up to seven calls.
func (c *child) within(r *rig) time.Duration {
	longest := time.Duration(c.counter.longest.Load())
	if longest > window {
		r.Errorf("a step of %s took %v", c.kind, longest)
	}
	return longest
}

func (c *child) check(_ context.Context, dir string) error { return c.look(dir, c.from, c.to) }

// usesOf are those of a process that a snapshot took for hot.
func (s *target) usesOf(pid int, kind hot.Kind) (n int) {
	for _, u := range s.hot {
		if u.PID == pid && u.Kind == kind {
			n++
		}
	}
	return n
}

// What the tests above rest on: files of a program that was started before the
// filter are hot, and those of one that was started after it are not.
func TestHotAndShielded(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		early, late := &child{kind: "records", look: lookAtRecords}, &child{kind: "records", look: lookAtRecords}
		r.must(errors.Join(os.Mkdir(r.path("early"), 0o755), os.Mkdir(r.path("late"), 0o755)))
		early.start(r, r.path("early"))
		f, err := r.p.acquire(r.target.Volume)
		r.must(err)
		t.Cleanup(func() { r.must(r.p.giveBack(r.target.Volume.ID, f)) })
		late.start(r, r.path("late"))
		s := r.take(nil)
		if n := s.usesOf(early.process.Process.Pid, hot.Descriptor); n != recordFiles {
			t.Errorf("%d files are hot of the program that was there before the filter, want %d", n, recordFiles)
		}
		if n := s.usesOf(late.process.Process.Pid, hot.Descriptor); n != 0 {
			t.Errorf("%d files are hot of the program that came after the filter", n)
		}
	})
}

// TestWriterChild is what children run.
func TestWriterChild(*testing.T) {
	step := map[string]func() func(uint64) error{"records": writeRecords, "names": writeNames}[os.Getenv(writerVariable)]
	if step == nil {
		return // is run by other tests only
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	c, do := openCounter(os.Getenv(counterVariable)), step()
	for n := uint64(1); ; n++ {
		c.begun.Store(n)
		began := time.Now()
		if err := do(n); err != nil {
			fmt.Fprintf(os.Stderr, "step %d: %v\n", n, err)
			os.Exit(1)
		}
		c.done.Store(n)
		c.longest.Store(max(c.longest.Load(), int64(time.Since(began))))
		if n%50 == 0 {
			time.Sleep(time.Millisecond) // others want to do something, too
		}
	}
}

func openCounter(path string) *counter {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return counterIn(m)
}
