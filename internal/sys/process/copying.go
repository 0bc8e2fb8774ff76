package process

import (
	"context"
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
// returned as unsure, and so is one that does not answer: it is between two
// programs. Under a freeze of the file system they copy to, all that
// copy come to wait. Workers of io_uring do not show what they do.
func CopyingTasks(ctx context.Context) ([]Copying, error) {
	left, err := others()
	if err != nil {
		return nil, err
	}
	var copying []Copying
	var silent []Task
	was := map[int]stat{} // of those that ran
	for first := true; len(left) > 0 && (first || pause(ctx, time.Millisecond)); first = false {
		seen, mute := survey(left, func(t Task) (s sight, ok bool) {
			s.Task = t
			if s.Call, s.err = callOf(t.TID); s.err == ErrRunning {
				s.stat = statOf(t.TID)
			}
			return s, s.err == nil || s.err == ErrRunning
		})
		silent = append(silent, mute...)
		left = left[:0]
		for _, s := range seen {
			if s.err == nil {
				copying = appendCopying(copying, s.Task, s.Call)
				continue
			}
			old, known := was[s.TID]
			switch {
			case s.stat.state == 'X', known && s.stat.faults > old.faults:
				continue
			case !known, s.stat.system > old.system:
				was[s.TID] = s.stat
			case s.stat.user >= old.user+2:
				continue
			}
			left = append(left, s.Task)
		}
	}
	for _, t := range append(left, silent...) {
		copying = append(copying, Copying{Task: t, Call: Call{Number: -1}, From: -1, To: -1, Unsure: true})
	}
	return copying, nil
}

// A sight is what was seen of a thread: in which call it waits, or that it runs.
type sight struct {
	Task
	Call
	stat
	err error
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
