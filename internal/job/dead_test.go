package job

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

// Killed while it writes lines of megabytes, a log is read up to there, says
// where it is torn, is dead once, and then closed.
func TestKilledWhileWriting(t *testing.T) {
	torn := 0
	for i := range 5 {
		dir := t.TempDir()
		c, id := writer(t, dir)
		if list, err := List(dir); err != nil || len(list) != 1 || list[0].Status != Running || list[0].Code != "" {
			t.Fatalf("while it runs: %+v, %v", list, err)
		}
		if dead, err := CloseDead(dir); err != nil || len(dead) != 0 {
			t.Fatalf("closed a living job: %+v, %v", dead, err)
		}
		time.Sleep(time.Duration(i) * time.Millisecond)
		kill(t, c)

		j := load(t, dir, id)
		torn += j.TornLines
		if j.Status != Died || j.Code != problem.JobDied || j.Report != nil || j.TornLines > 1 {
			t.Fatalf("killed: %+v, %d torn", j.Summary, j.TornLines)
		}
		if (j.TornLines == 1) != (j.Events[len(j.Events)-1].Step == StepLog) {
			t.Error("a torn line is not said, or said in vain")
		}
		list, err := List(dir)
		must(t, err)
		if list[0].Status != Died || len(list[0].OpenIntents) != 1 || list[0].OpenIntents[0].Intent != "snapshot b" {
			t.Fatalf("list: %+v", list)
		}

		dead, err := CloseDead(dir)
		must(t, err)
		if len(dead) != 1 || dead[0].ID != id || dead[0].Status != Failed || len(dead[0].OpenIntents) != 1 || dead[0].OpenIntents[0].Intent != "snapshot b" {
			t.Fatalf("dead: %+v", dead)
		}
		if again, err := CloseDead(dir); err != nil || len(again) != 0 {
			t.Fatalf("dead twice: %+v, %v", again, err)
		}
		after := load(t, dir, id)
		if after.Status != Failed || after.Code != problem.JobDied || after.TornLines != j.TornLines || len(after.Events) != len(j.Events)+1 {
			t.Fatalf("closed: %+v, %d torn, %d events after %d", after.Summary, after.TornLines, len(after.Events), len(j.Events))
		}
		if list, err := List(dir); err != nil || list[0].Status != Failed || list[0].Code != problem.JobDied {
			t.Fatalf("list: %+v, %v", list, err)
		}
	}
	if torn == 0 {
		t.Error("no kill hit a write: the test proves nothing")
	}
	t.Logf("%d of 5 logs were torn", torn)
}

// A power cut leaves a log cut at any byte, or with zeros where data was to
// come. What was whole before is read, whatever the cut.
func TestCutAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir, night().now)
	want := []string{"one", "two\nlines", "drei – 3"}
	for _, text := range want {
		must(t, l.Add(Event{Step: StepStore, Text: text}))
	}
	must(t, l.Close(&Report{Status: Complete}))
	whole, err := os.ReadFile(filepath.Join(dir, l.ID()+suffix))
	must(t, err)

	for _, tail := range []string{"", "\x00\x00\x00\x00", "\x00\x00\n"} {
		step := 1
		if tail != "" {
			step = 7 // prime to the length of anything here
		}
		for cut := 1; cut <= len(whole); cut += step {
			dir := t.TempDir()
			path := filepath.Join(dir, l.ID()+suffix)
			must(t, os.WriteFile(path, append(slices.Clone(whole[:cut]), tail...), 0o600))
			j := load(t, dir, l.ID())
			got := texts(j.Events)
			if len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
				t.Fatalf("cut at %d: events %q", cut, got)
			}
			ends := strings.Count(string(whole[:cut]), "\n")
			if n := len(got); n < ends-1 && ends < 5 {
				t.Fatalf("cut at %d: %d lines, %d events", cut, ends, n)
			}
			if cut < len(whole)-1 && j.Status != Died || cut == len(whole) && tail == "" && j.Status != Complete {
				t.Fatalf("cut at %d with %q: %s", cut, tail, j.Status)
			}
			dead, err := CloseDead(dir)
			if err != nil || (len(dead) == 1) != (j.Status == Died) {
				t.Fatalf("cut at %d: %s, and closed %+v, %v", cut, j.Status, dead, err)
			}
			after := load(t, dir, l.ID())
			if after.Report == nil || !slices.Equal(texts(after.Events), got) || after.TornLines != j.TornLines {
				t.Fatalf("cut at %d: closed with report %v, events %q, %d torn after %d", cut, after.Report, texts(after.Events), after.TornLines, j.TornLines)
			}
		}
	}
}

// Each dead job is handed out once, however many ask at the same time, from
// one process or several.
func TestDeadOnce(t *testing.T) {
	dir := t.TempDir()
	want := map[string]int{}
	for range 6 {
		l := create(t, dir, nil)
		want[l.ID()] = 0
		l.file.Close() // as the kernel does when the process is killed
	}
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	note := func(id string) {
		mu.Lock()
		defer mu.Unlock()
		want[id]++
	}
	for range 3 {
		_, out := child(t, "close-dead", dir)
		wg.Go(func() {
			all, err := io.ReadAll(out)
			if err != nil {
				t.Error(err)
			}
			for id := range strings.FieldsSeq(string(all)) {
				note(id)
			}
		})
		wg.Go(func() {
			dead, err := CloseDead(dir)
			if err != nil {
				t.Error(err)
			}
			for _, d := range dead {
				note(d.ID)
			}
		})
		wg.Go(func() { // who only looks is in nobody's way
			for range 50 {
				if _, err := List(dir); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for id, n := range want {
		if n != 1 {
			t.Errorf("job %s was handed out %d times", id, n)
		}
	}
}

// A log that is just being made is not taken for a dead one.
func TestCreateWhileOthersCloseDead(t *testing.T) {
	dir := t.TempDir()
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if dead, err := CloseDead(dir); err != nil || len(dead) > 0 {
					t.Errorf("dead: %+v, %v", dead, err)
				}
				list, err := List(dir)
				if err != nil {
					t.Error(err)
				}
				for _, j := range list {
					if j.Status == Died {
						t.Errorf("%s is listed as dead", j.ID)
					}
				}
			}
		})
	}
	for range 150 {
		l := create(t, dir, nil)
		must(t, l.Close(&Report{Status: Complete}))
	}
	close(done)
	wg.Wait()
	list, err := List(dir)
	must(t, err)
	if len(list) != 150 {
		t.Errorf("%d logs, want 150", len(list))
	}
}

// A file without a first line tells nothing; it is removed and not listed.
func TestEmptyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "abcdefghij.jsonl")
	must(t, os.WriteFile(path, nil, 0o600))
	if list, err := List(dir); err != nil || len(list) != 0 {
		t.Errorf("list: %+v, %v", list, err)
	}
	if _, err := Load(dir, "abcdefghij"); !problem.Is(err, problem.NoSuchJob) {
		t.Errorf("load: %v", err)
	}
	if dead, err := CloseDead(dir); err != nil || len(dead) != 0 {
		t.Errorf("dead: %+v, %v", dead, err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the empty file is still there: %v", err)
	}
}

// A job that died before its first event ended when it started.
func TestDeadAtOnce(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir, night().now)
	l.file.Close()
	dead, err := CloseDead(dir)
	must(t, err)
	if len(dead) != 1 || !dead[0].Ended.Equal(l.header.Started) {
		t.Errorf("%+v", dead)
	}
	if r := load(t, dir, l.ID()).Report; !r.Ended.Equal(l.header.Started) || r.Took != 0 {
		t.Errorf("%+v", r)
	}
}

func TestDeadBeforeTheHostWasStartedAnew(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "abcdefghij.jsonl"), []byte(`{"type":"job","format":1,"id":"abcdefghij","kind":"backup","started":"2026-03-01T02:00:00Z","pid":7,"boot_id":"another"}
{"type":"event","time":"2026-03-01T02:00:09Z","severity":"info","step":"store","text":"x"}
`), 0o600))
	dead, err := closeDead(dir, night().now)
	must(t, err)
	if len(dead) != 1 {
		t.Fatalf("%+v", dead)
	}
	r := load(t, dir, "abcdefghij").Report
	if want := "process 7 ended without closing this log; its last line is of 2026-03-01T02:00:09Z; the host was started anew since"; r.Text != want {
		t.Errorf("%q", r.Text)
	}
	if r.Took != Millis(9*time.Second) || r.Kind != Backup {
		t.Errorf("%+v", r)
	}
}
