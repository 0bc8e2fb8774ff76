package job

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"stillpoint/internal/problem"
)

// Exceptions are beside the log, in their order, with names of any bytes; a job
// that begins again forgets them, and they go with the log.
func TestExceptions(t *testing.T) {
	dir := t.TempDir()
	l, err := Create(dir, Start{Kind: Backup, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(listOf(dir, l.ID())); err == nil {
		t.Error("a list without an exception")
	}
	must(l.ForgetExceptions())
	must(l.Except(Exception{Path: "/forgotten", Code: problem.FileUnreadable, Reason: "x", Step: StepStore}))
	must(l.ForgetExceptions())
	l.Hold()
	must(l.Except(Exception{Path: "/a\xff", Code: problem.FileUnreadable, Reason: "bad block", Step: StepStore}))
	if b, err := os.ReadFile(listOf(dir, l.ID())); err != nil || len(b) > 0 {
		t.Errorf("while the log is held: %q, %v", b, err)
	}
	must(l.Release())
	must(l.Except(Exception{Path: "/b", Reason: "left out: excluded by b", Step: StepStore}))
	must(l.Close(&Report{Status: Complete}))
	if err := l.Except(Exception{}); err == nil {
		t.Error("taken when the log is closed")
	}
	var got []Exception
	must(EachException(dir, l.ID(), func(x Exception) error { got = append(got, x); return nil }))
	if len(got) != 2 || got[0] != (Exception{"/a\xff", problem.FileUnreadable, "bad block", StepStore}) || got[1].Path != "/b" || got[1].Code != "" {
		t.Errorf("%+v", got)
	}
	if all, err := List(dir); err != nil || len(all) != 1 {
		t.Errorf("%d jobs, %v", len(all), err)
	}
	if _, err := Prune(dir, 0); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A job whose exceptions are not on the disk is not complete, whatever it says.
func TestLostExceptions(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir, nil)
	must(t, l.Except(Exception{Path: "/a", Code: problem.FileUnreadable, Reason: "x", Step: StepStore}))
	must(t, l.SyncExceptions())
	must(t, l.others.Close()) // as if the disk did not take them
	if err := l.SyncExceptions(); !problem.Is(err, problem.StateLost) {
		t.Errorf("got %v", err)
	}
	r := &Report{Status: CompleteWithExceptions, Code: problem.FileUnreadable}
	if err := l.Close(r); !problem.Is(err, problem.StateLost) || r.Status != Failed || r.Code != problem.StateLost {
		t.Errorf("%v, %s [%s]", err, r.Status, r.Code)
	}
	if j := load(t, dir, l.ID()); j.Status != Failed || j.Code != problem.StateLost {
		t.Errorf("the log: %+v", j.Summary)
	}
}

// Thirty thousand exceptions need no memory, neither to be written nor to be
// read.
func TestManyExceptions(t *testing.T) {
	dir := t.TempDir()
	l, err := Create(dir, Start{Kind: Backup, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	const many = 30_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range many {
		if err := l.Except(Exception{Path: fmt.Sprintf("/srv/data/file%d", i), Code: problem.FileUnreadable, Reason: "input/output error", Step: StepStore}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(&Report{Status: CompleteWithExceptions}); err != nil {
		t.Fatal(err)
	}
	n := 0
	err = EachException(dir, l.ID(), func(x Exception) error { n++; return nil })
	runtime.GC()
	runtime.ReadMemStats(&after)
	if err != nil || n != many {
		t.Errorf("%d, %v", n, err)
	}
	if more := int64(after.HeapAlloc) - int64(before.HeapAlloc); more > 2<<20 {
		t.Errorf("%d KiB more are in use", more>>10)
	}
	runtime.KeepAlive(l)
}
