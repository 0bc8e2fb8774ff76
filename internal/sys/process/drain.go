package process

import (
	"bytes"
	"context"
	"time"
)

// A Task is a thread of a process.
type Task struct{ PID, TID int }

// Drain waits until every thread that is now running, other than our own, has
// got on: it was seen not running, has slept meanwhile, has had a page fault,
// or a millisecond of processor time. Whoever was between a check and what it
// guards, in code that neither sleeps nor touches user memory nor takes nearly
// that long, then is so no more. It returns those that had not got on when the
// context was over.
//
// User time, which would show the same, is not used: where the kernel counts
// ticks, it shares out the time that it measured by their proportion, and user
// time can grow inside a long system call (cputime_adjust).
//
// Of one that does not answer in time only status is asked, which always does.
func Drain(ctx context.Context) ([]Task, error) {
	all, err := others()
	if err != nil {
		return nil, err
	}
	known := map[int]*progress{}
	running, silent := survey(all, func(t Task) (*progress, bool) {
		s := statOf(t.TID)
		if s.state != 'R' {
			return nil, false
		}
		return look(t, s), true
	})
	var left []Task
	for _, p := range running {
		known[p.TID] = p
		left = append(left, p.Task)
	}
	left = append(left, awake(silent)...)
	for len(left) > 0 {
		if left, silent = survey(left, func(t Task) (Task, bool) {
			p := known[t.TID]
			return t, p == nil && stateOf(t.TID) == 'R' || p != nil && !p.madeIt()
		}); len(silent) > 0 {
			left = append(left, awake(silent)...)
		}
		if len(left) == 0 || !pause(ctx, 200*time.Microsecond) {
			break
		}
	}
	return left, nil
}

// awake are those of tasks that run. One that sleeps in a system call that keeps
// others from looking at it (execve) is not on its way to a write.
func awake(tasks []Task) (running []Task) {
	for _, t := range tasks {
		if stateOf(t.TID) == 'R' {
			running = append(running, t)
		}
	}
	return running
}

// stateOf is the letter that /proc/TID/status has for the state; 'X' if the
// thread is gone.
func stateOf(tid int) byte {
	path := procPath(tid, "status")
	var buf [4096]byte
	b, _ := path.read(buf[:])
	_, b, ok := bytes.Cut(b, []byte("\nState:\t"))
	if !ok || len(b) == 0 {
		return 'X'
	}
	return b[0]
}

// pause sleeps, and tells whether the context is not over.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// A progress follows a running thread.
type progress struct {
	Task
	faults, slept uint64
	ran           uint64 // ns
	counts        bool   // ran is exact
}

func look(t Task, s stat) *progress {
	return &progress{Task: t, faults: s.faults, slept: sleeps(t.TID), ran: cpuTime(t.TID)}
}

// madeIt tells whether the thread has got on since look.
func (p *progress) madeIt() bool {
	s := statOf(p.TID)
	if s.state != 'R' || s.faults > p.faults || sleeps(p.TID) > p.slept {
		return true
	}
	now := cpuTime(p.TID)
	switch {
	case now == p.ran:
		return false
	case !p.counts:
		// The time of a thread on a processor is brought up to date at each
		// tick only; what it gained until the first one may lie before look.
		p.ran, p.counts = now, true
		return false
	}
	return now-p.ran >= uint64(time.Millisecond)
}

// A stat is what is used of /proc/TID/stat.
type stat struct {
	state        byte   // a letter; 'X' if the thread is gone
	faults       uint64 // of pages
	user, system uint64 // time there, in 1/100 s
}

// statOf reads /proc/TID/stat. The name before the state may have spaces and
// parentheses in it.
func statOf(tid int) stat {
	path := procPath(tid, "stat")
	var buf [512]byte
	b, err := path.read(buf[:])
	i := bytes.LastIndexByte(b, ')')
	if err != nil || i < 0 || len(b) < i+3 {
		return stat{state: 'X'}
	}
	s := stat{state: b[i+2]}
	b = b[i+3:]
	var fields [12]uint64 // from the fourth on, ppid
	for i := range fields {
		var f []byte
		f, b = field(b)
		fields[i] = number(f, 10)
	}
	s.faults = fields[6] + fields[8] // minflt, majflt
	s.user, s.system = fields[10], fields[11]
	return s
}

// cpuTime is the processor time of a thread in ns, from schedstat, which a
// kernel without CONFIG_SCHED_INFO fills with zeros.
func cpuTime(tid int) uint64 {
	path := procPath(tid, "schedstat")
	var buf [128]byte
	b, _ := path.read(buf[:])
	f, _ := field(b)
	if ns := number(f, 10); ns > 0 {
		return ns
	}
	s := statOf(tid)
	return (s.user + s.system) * uint64(10*time.Millisecond)
}

// sleeps is how often the thread gave up its processor to wait.
func sleeps(tid int) uint64 {
	path := procPath(tid, "status")
	var buf [4096]byte
	b, _ := path.read(buf[:])
	key := []byte("\nvoluntary_ctxt_switches:")
	i := bytes.Index(b, key)
	if i < 0 {
		return 0
	}
	f, _ := field(b[i+len(key):])
	return number(f, 10)
}
