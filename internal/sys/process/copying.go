package process

import (
	"context"
	"os"
	"time"
)

// A Copying is a thread inside a call that copies from one descriptor to
// another. Of a long copy the kernel asks once for permission, and then writes
// piece by piece (direct_splice_actor).
type Copying struct {
	Task
	Call
	From, To int  // descriptors of the thread, see FileOf
	Unsure   bool // it did not stop running, and may copy or not
}

// CopyingTasks lists the threads, other than our own, inside sendfile, splice
// or copy_file_range. A running thread is asked again until it waits for
// something, has had a page fault, which none of these calls has on its way, or
// has spent time in user space only; when the context is over before, it is
// returned as unsure. Under a freeze of the file system they copy to, all that
// copy come to wait. Workers of io_uring do not show what they do.
func CopyingTasks(ctx context.Context) ([]Copying, error) {
	type runner struct {
		Task
		stat
	}
	var copying []Copying
	var running []runner
	err := Tasks(func(p, tid int) {
		if p == os.Getpid() {
			return
		}
		t := Task{p, tid}
		switch c, err := callOf(tid); {
		case err == ErrRunning:
			running = append(running, runner{t, statOf(tid)})
		case err == nil:
			copying = appendCopying(copying, t, c)
		}
	})
	for err == nil && len(running) > 0 && pause(ctx, time.Millisecond) {
		left := running[:0]
		for _, r := range running {
			c, err := callOf(r.TID)
			if err == nil {
				copying = appendCopying(copying, r.Task, c)
			}
			if err != ErrRunning {
				continue
			}
			switch now := statOf(r.TID); {
			case now.state == 'X', now.faults > r.faults:
				continue
			case now.system > r.system:
				r.stat = now
			case now.user >= r.user+2:
				continue
			}
			left = append(left, r)
		}
		running = left
	}
	for _, r := range running {
		copying = append(copying, Copying{Task: r.Task, Call: Call{Number: -1}, From: -1, To: -1, Unsure: true})
	}
	return copying, err
}

func appendCopying(to []Copying, t Task, c Call) []Copying {
	from, into := -1, -1
	switch a := c.abi(); {
	case a == nativeABI && c.Number == sysSendfile, a == compatABI && (c.Number == compatSendfile || c.Number == compatSendfile64):
		from, into = 1, 0
	case a == nativeABI && (c.Number == sysSplice || c.Number == sysCopyFileRange),
		a == compatABI && (c.Number == compatSplice || c.Number == compatCopyFileRange):
		from, into = 0, 2
	default:
		return to
	}
	return append(to, Copying{Task: t, Call: c, From: int(int32(c.Args[from])), To: int(int32(c.Args[into]))})
}
