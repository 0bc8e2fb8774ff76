package hot

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/opened"
)

const (
	manyPasses      = 4
	manyGenerations = 20 // of processes that begin during a pass
	// patience is how long is waited for one step of looking at a process, or
	// for the kernel's part.
	// Its mappings cannot be read while one of its threads waits for a dead
	// server in a page fault and another one waits to change them.
	patience = time.Second
)

// Scan looks for uses of files of the file system that stat(2) calls dev, and
// returns them sorted by process. Processes that end meanwhile are no error; one
// that cannot be looked at in the end is a use of the kind Unreadable.
func Scan(ctx context.Context, dev uint64, o Options) ([]Use, error) {
	s, err := newScanner(dev, o)
	if err != nil {
		return nil, err
	}
	all := map[key]Use{}
	for range s.o.Passes {
		found, err := s.pass(ctx)
		if err != nil {
			return nil, err
		}
		before, fresh := len(all), false
		now := map[key]bool{}
		for _, u := range found {
			now[u.key()] = true
			old, known := all[u.key()]
			fresh = fresh || !known
			if known && !old.Shielded {
				continue // of several open files of one inode, one is not
			}
			all[u.key()] = u
		}
		maps.DeleteFunc(all, func(k key, u Use) bool { // it has answered, or is gone
			return u.Kind == Unreadable && u.PID != theKernel && !now[k]
		})
		// Something new may have come from a process that was looked at too
		// early. (The first pass finds nothing new only where nothing is.)
		if !fresh && before > 0 {
			break
		}
	}
	return slices.SortedFunc(maps.Values(all), compare), nil
}

// A key is what makes a use another one.
type key struct {
	kind     Kind
	inode    uint64
	pid      int
	program  string
	from, to int64
	nowhere  string // the path, where there is no inode
}

func (u Use) key() key {
	k := key{kind: u.Kind, inode: u.Inode, pid: u.PID, program: u.Program, from: u.From, to: u.To}
	if u.Inode == 0 {
		k.nowhere = u.Path
	}
	return k
}

func compare(a, b Use) int {
	return cmp.Or(cmp.Compare(a.PID, b.PID), cmp.Compare(a.Program, b.Program), cmp.Compare(a.Kind, b.Kind),
		cmp.Compare(a.Inode, b.Inode), cmp.Compare(a.Path, b.Path), cmp.Compare(a.From, b.From))
}

// A pass looks at everything once, and then at the processes that began
// meanwhile, until there are none: what a process has it may leave to a child
// and end.
func (s *scanner) pass(ctx context.Context) ([]Use, error) {
	spaces := newNamespaces()
	// Ourselves alone, before anybody has duplicated a descriptor of another process in
	// order to ask about it, which would be found as one of ours.
	found, err := s.lookAt(ctx, []int{os.Getpid()}, spaces)
	if err != nil {
		return nil, err
	}
	seen := map[int]bool{os.Getpid(): true}
	fresh := []int{theKernel}
	for range manyGenerations {
		pids, err := s.processes()
		if err != nil {
			return nil, err
		}
		for _, pid := range pids {
			if !seen[pid] {
				seen[pid] = true
				fresh = append(fresh, pid)
			}
		}
		if len(fresh) == 0 {
			break
		}
		us, err := s.lookAt(ctx, fresh, spaces)
		if err != nil {
			return nil, err
		}
		found = append(found, us...)
		fresh = nil
	}
	overlays := make(chan []Use, 1)
	go func() { overlays <- s.overlays(spaces) }()
	select {
	case us := <-overlays:
		return append(found, us...), nil
	case <-time.After(patience):
		return append(found, s.unreadable(theKernel, "the mounts of all processes")), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lookAt looks at processes, each by one of a few workers. A worker that waits
// too long is left behind, and another one takes its place.
func (s *scanner) lookAt(ctx context.Context, pids []int, spaces *namespaces) ([]Use, error) {
	jobs := make(chan int, len(pids))
	for _, pid := range pids {
		jobs <- pid
	}
	close(jobs)
	ended := make(chan []Use, len(pids))
	var workers []*worker
	start := func() {
		w := &worker{s: s, spaces: spaces}
		workers = append(workers, w)
		go w.run(jobs, ended)
	}
	for range min(len(pids), max(2, runtime.GOMAXPROCS(0))) {
		start()
	}
	var found []Use
	tick := time.NewTicker(patience / 10)
	defer tick.Stop()
	for left := len(pids); left > 0; {
		select {
		case us := <-ended:
			found = append(found, us...)
			left--
		case now := <-tick.C:
			for _, w := range slices.Clone(workers) {
				if pid, late := w.leave(now); late {
					found = append(found, s.unreadable(pid, Silent))
					left--
					start()
				}
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return found, nil
}

const realProc = "/proc"

// theKernel takes the place of a process.
const theKernel = 0

// A worker looks at processes, one at a time.
type worker struct {
	s      *scanner
	spaces *namespaces
	names  []byte // for directories

	// at is the job and when it began; nil between two, and when the worker
	// was left.
	at atomic.Pointer[job]
}

type job struct {
	pid   int
	since atomic.Int64 // when it last went on, in ns
}

// goOn is called between two steps of a job, each of which may hang.
func (w *worker) goOn() {
	if j := w.at.Load(); j != nil {
		j.since.Store(time.Now().UnixNano())
	}
}

func (w *worker) run(jobs <-chan int, ended chan<- []Use) {
	w.names = make([]byte, 32<<10)
	for pid := range jobs {
		now := &job{pid: pid}
		now.since.Store(time.Now().UnixNano())
		w.at.Store(now)
		var us []Use
		if pid == theKernel {
			us = w.s.kernel()
		} else {
			us = w.process(pid)
		}
		if !w.at.CompareAndSwap(now, nil) {
			return // nobody waits any more
		}
		ended <- us
	}
}

// leave gives up a worker that takes too long, and returns what it is at.
func (w *worker) leave(now time.Time) (pid int, late bool) {
	j := w.at.Load()
	if j == nil || now.Sub(time.Unix(0, j.since.Load())) < patience {
		return 0, false
	}
	return j.pid, w.at.CompareAndSwap(j, nil)
}

// A scanner is what all workers share. It does not change.
type scanner struct {
	dev    uint64
	o      Options
	anon   uint64     // the device of files that have no name anywhere, such as rings
	asking sync.Mutex // held while Shielded is asked
}

func newScanner(dev uint64, o Options) (*scanner, error) {
	o.Proc = cmp.Or(o.Proc, realProc)
	o.Sys = cmp.Or(o.Sys, "/sys")
	o.Config = cmp.Or(o.Config, "/sys/kernel/config")
	o.Passes = cmp.Or(o.Passes, manyPasses)
	anon, err := opened.AnonymousDevice()
	if err != nil {
		return nil, fmt.Errorf("look for open files: %w", err)
	}
	return &scanner{dev: dev, o: o, anon: anon}, nil
}

func (s *scanner) processes() ([]int, error) {
	dir, err := file.Open(file.Here, s.o.Proc, file.Read|file.Directory)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer file.Close(dir)
	var pids []int
	err = file.List(dir, make([]byte, 32<<10), func(name []byte, _ file.Kind, _ uint64) error {
		if pid, err := strconv.Atoi(string(name)); err == nil {
			pids = append(pids, pid)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	return pids, nil
}

// unreadable is a use by whoever cannot be looked at.
func (s *scanner) unreadable(pid int, why string) Use {
	u := Use{Kind: Unreadable, PID: pid, Path: why, Writes: true}
	if pid != theKernel {
		u.Program = s.program(pid)
	}
	return u
}

// program is the name of a process. Its file comm never waits for anything but
// a lock of the task (comm_show() in fs/proc/base.c).
func (s *scanner) program(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("%s/%d/comm", s.o.Proc, pid))
	return strings.TrimSuffix(string(b), "\n")
}
