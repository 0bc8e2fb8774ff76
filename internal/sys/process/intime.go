package process

import (
	"os"
	"sync"
	"time"
)

// Most of what /proc tells of a process waits while that one is between two
// programs (exec_update_lock in fs/exec.c), which can take for ever: the kernel
// then closes files, and a server that does not answer is asked first (seen: all
// but comm, status, schedstat, and the lists in fd and task). So others are
// looked at by goroutines that may hang, each with a thread of its own, and who
// is known to hang is not asked again.
const (
	answerTime = 200 * time.Millisecond
	mostMute   = 16 // beyond these nobody is asked any more
)

// mute are the tasks that somebody still waits for.
var mute = struct {
	sync.Mutex
	ids map[int]bool
}{ids: map[int]bool{}}

// isMute tells whether there is no use in asking a task.
func isMute(id int) bool {
	mute.Lock()
	defer mute.Unlock()
	return mute.ids[id] || len(mute.ids) >= mostMute
}

func setMute(id int, is bool) {
	mute.Lock()
	defer mute.Unlock()
	if is {
		mute.ids[id] = true
	} else {
		delete(mute.ids, id)
	}
}

// InTime returns what f returns, which looks at a task, unless that takes too
// long.
func InTime[T any](id int, f func() T) (result T, ok bool) {
	got, _ := survey([]Task{{id, id}}, func(Task) (T, bool) { return f(), true })
	if len(got) == 0 {
		return result, false
	}
	return got[0], true
}

// Answers tells whether a process lets itself be looked at. One that is between
// two programs does not.
func Answers(pid int) bool {
	_, ok := InTime(pid, func() stat { return statOf(pid) })
	return ok
}

// A round is a survey's goroutine.
type round[T any] struct {
	mu    sync.Mutex
	at    int  // the task that is looked at
	left  bool // nobody waits for it any more
	found []T
}

// survey returns what look finds at tasks, one after the other, and those that
// did not answer.
func survey[T any](tasks []Task, look func(Task) (T, bool)) (found []T, silent []Task) {
	for len(tasks) > 0 {
		if isMute(tasks[0].TID) {
			silent, tasks = append(silent, tasks[0]), tasks[1:]
			continue
		}
		r := &round[T]{}
		ended := make(chan struct{})
		go r.run(tasks, look, ended)
		hangs := r.wait(tasks, ended)
		found = append(found, r.found...)
		if hangs < 0 {
			tasks = tasks[r.at:] // the next one is mute, or there is none
			continue
		}
		silent, tasks = append(silent, tasks[hangs]), tasks[hangs+1:]
	}
	return found, silent
}

// run looks at tasks until one is mute.
func (r *round[T]) run(tasks []Task, look func(Task) (T, bool), ended chan<- struct{}) {
	defer close(ended)
	for i, t := range tasks {
		if i > 0 && isMute(t.TID) {
			return
		}
		x, ok := look(t)
		r.mu.Lock()
		if r.left {
			r.mu.Unlock()
			setMute(t.TID, false)
			return
		}
		if ok {
			r.found = append(r.found, x)
		}
		r.at = i + 1
		r.mu.Unlock()
	}
}

// wait waits for the end, or returns the task that does not answer. It counts
// ticks that it sees, so that a time in which nobody could run is none.
func (r *round[T]) wait(tasks []Task, ended <-chan struct{}) (hangs int) {
	const ticks = 10
	tick := time.NewTicker(answerTime / ticks)
	defer tick.Stop()
	for at, seen := 0, 0; ; {
		select {
		case <-ended:
			return -1
		case <-tick.C:
		}
		r.mu.Lock()
		if seen++; r.at > at || r.at == len(tasks) {
			at, seen = r.at, 0
		}
		if seen > ticks {
			r.left = true
			setMute(tasks[at].TID, true)
			r.mu.Unlock()
			return at
		}
		r.mu.Unlock()
	}
}

// others lists all tasks but our own.
func others() ([]Task, error) {
	var all []Task
	err := Tasks(func(pid, tid int) {
		if pid != os.Getpid() {
			all = append(all, Task{pid, tid})
		}
	})
	return all, err
}
