package process

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// Who does not answer holds nobody up, is asked by one goroutine only, and is
// asked again when it has answered; when many do not, nobody is asked any more.
func TestSurvey(t *testing.T) {
	const base = 1 << 30 // no task has such a number
	var tasks []Task
	for i := range 40 {
		tasks = append(tasks, Task{base + i, base + i})
	}
	release := make(chan struct{})
	var hanging atomic.Int32
	look := func(hangs func(i int) bool) func(Task) (int, bool) {
		return func(t Task) (int, bool) {
			i := t.TID - base
			if hangs(i) {
				hanging.Add(1)
				<-release
				hanging.Add(-1)
			}
			return i, i%2 == 0
		}
	}
	none := func(int) bool { return false }
	third := func(i int) bool { return i == 3 || i == 39 }
	began := time.Now()
	found, silent := survey(tasks, look(third))
	if took := time.Since(began); took > 10*answerTime {
		t.Errorf("it took %v", took)
	}
	if len(found) != 20 || !slices.Equal(silent, []Task{tasks[3], tasks[39]}) {
		t.Errorf("found %v, silent %v", found, silent)
	}
	found, silent = survey(tasks, look(none)) // the two are not asked
	if len(found) != 20 || len(silent) != 2 || hanging.Load() != 2 {
		t.Errorf("found %v, silent %v, and %d hang", found, silent, hanging.Load())
	}
	if _, ok := InTime(base+3, func() int { return 1 }); ok {
		t.Error("one that hangs answers")
	}
	if n, ok := InTime(base+4, func() int { return 1 }); !ok || n != 1 {
		t.Error("one that does not hang does not answer")
	}
	all := func(i int) bool { return i < 30 }
	_, silent = survey(tasks, look(all))
	if len(silent) != len(tasks) || hanging.Load() != mostMute {
		t.Errorf("%d are silent, of which %d hang", len(silent), hanging.Load())
	}
	close(release)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if found, silent = survey(tasks, look(none)); len(silent) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("silent for ever: %v", silent)
		}
	}
	if len(found) != 20 || !slices.IsSorted(found) {
		t.Errorf("found %v", found)
	}
}
