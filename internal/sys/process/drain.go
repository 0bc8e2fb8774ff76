package process

import (
	"bytes"
	"context"
	"slices"
	"time"
)

// A Task is a thread of a process.
type Task struct{ PID, TID int }

// Drain waits until every thread that is now running, other than our own, has
// got on: it was seen not running, has slept meanwhile, or has had a
// millisecond of processor time. Whoever was between a check and what it
// guards, in code that neither sleeps nor touches user memory nor takes nearly
// that long, then is so no more. It returns those that had not got on when the
// context was over.
//
// User time, which would show the same, is not used: where the kernel counts
// ticks, it shares out the time that it measured by their proportion, and user
// time can grow inside a long system call (cputime_adjust).
//
// Those that run are followed by status and schedstat, which always answer; so
// is one that does not answer otherwise.
func Drain(ctx context.Context) ([]Task, error) {
	all, err := others()
	if err != nil {
		return nil, err
	}
	running, silent := survey(all, func(t Task) (*progress, bool) {
		if statOf(t.TID).state != 'R' {
			return nil, false
		}
		_, slept := stateOf(t.TID)
		return &progress{Task: t, slept: slept, ran: cpuTime(t.TID)}, true
	})
	for _, t := range silent {
		if state, slept := stateOf(t.TID); state == 'R' { // in execve it sleeps, and is not on its way to a write
			running = append(running, &progress{Task: t, slept: slept, ran: cpuTime(t.TID)})
		}
	}
	for {
		running = slices.DeleteFunc(running, (*progress).madeIt)
		if len(running) == 0 || !pause(ctx, 200*time.Microsecond) {
			break
		}
	}
	var stuck []Task
	for _, p := range running {
		stuck = append(stuck, p.Task)
	}
	return stuck, nil
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
	slept  uint64
	ran    uint64 // ns
	counts bool   // ran is exact
}

// madeIt tells whether the thread has got on since.
func (p *progress) madeIt() bool {
	if state, slept := stateOf(p.TID); state != 'R' || slept > p.slept {
		return true
	}
	now := cpuTime(p.TID)
	switch {
	case now == p.ran:
		return false
	case !p.counts:
		// The time of a thread on a processor is brought up to date at each
		// tick only; what it gained until the first one may lie before that.
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
	s, _ := InTime(tid, func() stat { return statOf(tid) })
	return (s.user + s.system) * uint64(10*time.Millisecond)
}

// stateOf reads /proc/TID/status: the letter of the state, 'X' if the thread is
// gone, and how often it gave up its processor to wait.
func stateOf(tid int) (state byte, slept uint64) {
	path := procPath(tid, "status")
	var buf [4096]byte
	b, _ := path.read(buf[:])
	_, b, ok := bytes.Cut(b, []byte("\nState:\t"))
	if !ok || len(b) == 0 {
		return 'X', 0
	}
	state = b[0]
	_, b, _ = bytes.Cut(b, []byte("\nvoluntary_ctxt_switches:"))
	f, _ := field(b)
	return state, number(f, 10)
}
