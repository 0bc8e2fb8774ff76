package job

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"stillpoint/internal/problem"
)

func TestLogIsReadAsWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "jobs")
	l := create(t, dir, night().now)
	must(t, l.Add(Event{Step: StepPlan, Text: "one volume"}))
	must(t, l.Intent(Event{Step: StepCapture, Volume: "4f0c/256", Intent: "snapshot/1", Text: "about to take a snapshot"}))
	must(t, l.Add(Event{Severity: Warning, Step: StepStore, Path: "/srv/\xff", Code: problem.FileChanged, Text: "changed while it was read", Data: map[string]any{"object": int64(1<<60 + 1)}}))

	running := load(t, dir, l.ID())
	if running.Status != Running || running.Report != nil || !running.Ended.IsZero() || len(running.OpenIntents) != 1 {
		t.Errorf("while it runs: %+v", running.Summary)
	}

	must(t, l.Add(Event{Step: StepRelease, Done: "snapshot/1", Text: "released"}))
	r := Report{Exceptions: []Exceptions{{Code: problem.FileChanged, Count: 1}}, Level: FileSystem, Backup: "b1"}
	r.Settle(nil)
	must(t, l.Close(&r))

	j := load(t, dir, l.ID())
	if got := texts(j.Events); !slices.Equal(got, []string{"one volume", "about to take a snapshot", "changed while it was read", "released"}) {
		t.Errorf("events %q", got)
	}
	if e := j.Events[2]; e.Path != "/srv/\xff" || e.Code != problem.FileChanged || fmt.Sprint(e.Data["object"]) != "1152921504606846977" || e.Severity != Warning {
		t.Errorf("event %+v", e)
	}
	if j.Status != CompleteWithExceptions || j.Code != problem.FileChanged || j.Exceptions != 1 || j.Backup != "b1" || j.TornLines != 0 || len(j.OpenIntents) != 0 {
		t.Errorf("job %+v", j.Summary)
	}
	if !reflect.DeepEqual(j.Header, l.Header()) || j.PID != os.Getpid() || j.BootID == "" || j.User == "" || j.Host == "" {
		t.Errorf("header %+v, want %+v", j.Header, l.Header())
	}
	if j.Report.Job != l.ID() || j.Report.Kind != Backup || j.Report.Took != j.Took || j.Took != Millis(5*250*time.Millisecond) {
		t.Errorf("report %+v", j.Report)
	}
	list, err := List(dir)
	must(t, err)
	if len(list) != 1 || !reflect.DeepEqual(list[0], j.Summary) {
		t.Errorf("list %+v\nload %+v", list, j.Summary)
	}
}

func TestFileIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "jobs")
	l := create(t, dir, nil)
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Join(dir, l.ID()+".jsonl"): 0o600} {
		info, err := os.Stat(path)
		must(t, err)
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
}

// While writes are suspended, nothing may reach the file.
func TestHold(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir, night().now)
	must(t, l.Add(Event{Text: "before"}))
	size := func() int64 {
		info, err := os.Stat(filepath.Join(dir, l.ID()+suffix))
		must(t, err)
		return info.Size()
	}
	l.Hold()
	before := size()
	for i := range 1000 {
		must(t, l.Add(Event{Text: fmt.Sprint(i)}))
	}
	if err := l.Intent(Event{Intent: "x", Text: "too late"}); err == nil {
		t.Error("an intent was promised while the log was held")
	}
	if err := l.Close(&Report{}); err == nil {
		t.Error("closed while held")
	}
	if size() != before {
		t.Fatal("the log was written to while it was held")
	}
	must(t, l.Release())
	if got := texts(load(t, dir, l.ID()).Events); len(got) != 1002 || got[0] != "before" || got[1] != "0" || got[1001] != "too late" {
		t.Errorf("%d events", len(got))
	}
	must(t, l.Release()) // without Hold it does nothing
	must(t, l.Close(&Report{}))
}

func TestAddFromManyGoroutines(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir, nil)
	var wg sync.WaitGroup
	const writers, events = 16, 200
	for w := range writers {
		wg.Go(func() {
			for i := range events {
				if err := l.Add(Event{Step: StepStore, Volume: fmt.Sprint(w), Text: fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			l.Hold()
			time.Sleep(100 * time.Microsecond)
			if err := l.Release(); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	must(t, l.Close(&Report{Status: Complete}))
	next := map[string]int{}
	j := load(t, dir, l.ID())
	for _, e := range j.Events {
		if e.Text != fmt.Sprint(next[e.Volume]) {
			t.Fatalf("writer %s: event %s, want %d", e.Volume, e.Text, next[e.Volume])
		}
		next[e.Volume]++
	}
	if len(j.Events) != writers*events || j.TornLines != 0 {
		t.Errorf("%d events, %d torn", len(j.Events), j.TornLines)
	}
}

// A job that is cancelled still says so in its log.
func TestCancelledJobClosesItsLog(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, l.Add(Event{Step: StepStore, Severity: Error, Code: problem.Cancelled, Text: ctx.Err().Error()}))
	var r Report
	r.Settle(fmt.Errorf("store /srv: %w", ctx.Err()))
	must(t, l.Close(&r))
	if j := load(t, dir, l.ID()); j.Status != Cancelled || j.Code != problem.Cancelled || len(j.Events) != 1 {
		t.Errorf("%+v", j.Summary)
	}
}

func TestSettle(t *testing.T) {
	full := problem.Newf(problem.SnapshotFull, "/srv", "no space left on device")
	stopped := problem.New(problem.RepositoryLost, "/backup", context.Canceled)
	for name, c := range map[string]struct {
		err        error
		exceptions []Exceptions
		status     Status
		code       problem.Code
	}{
		"good":                     {nil, nil, Complete, ""},
		"exceptions":               {nil, []Exceptions{{Code: problem.FileChanged, Count: 7}, {Code: problem.FileVanished, Count: 2}}, CompleteWithExceptions, problem.FileChanged},
		"failed":                   {fmt.Errorf("capture: %w", full), nil, Failed, problem.SnapshotFull},
		"failed with exceptions":   {full, []Exceptions{{Code: problem.FileChanged, Count: 7}}, Failed, problem.SnapshotFull},
		"no code":                  {errors.New("odd"), nil, Failed, problem.Uncatalogued},
		"too late":                 {context.DeadlineExceeded, nil, Failed, problem.Uncatalogued},
		"cancelled":                {context.Canceled, nil, Cancelled, problem.Cancelled},
		"by signal":                {problem.New(problem.Cancelled, "", errors.New("SIGTERM")), nil, Cancelled, problem.Cancelled},
		"a step minds the signal":  {stopped, nil, Failed, problem.RepositoryLost},
		"the job knows the signal": {problem.New(problem.Cancelled, "", stopped), nil, Cancelled, problem.Cancelled},
	} {
		r := Report{Status: Failed, Code: "old", Text: "old", Exceptions: c.exceptions}
		r.Settle(c.err)
		if r.Status != c.status || r.Code != c.code || (r.Text == "") != (c.err == nil) || r.Text == "old" {
			t.Errorf("%s: %s %s %q", name, r.Status, r.Code, r.Text)
		}
	}
}

// What JSON has no form for must not cost the event.
func TestUnwritableDataIsSaid(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir, nil)
	must(t, l.Add(Event{Text: "rate", Data: map[string]any{"rate": math.NaN()}}))
	must(t, l.Add(Event{Text: "far future", Time: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)}))
	must(t, l.Close(&Report{Volumes: []VolumeReport{{Instant: time.Date(-4, 1, 1, 0, 0, 0, 0, time.UTC)}}}))
	j := load(t, dir, l.ID())
	if len(j.Events) != 2 || j.Events[0].Data["lost"] == nil || j.Report == nil {
		t.Errorf("%+v", j)
	}
}

func TestClosedLogTakesNothing(t *testing.T) {
	l := create(t, t.TempDir(), nil)
	must(t, l.Close(&Report{Status: Complete}))
	for name, err := range map[string]error{
		"add":    l.Add(Event{Text: "late"}),
		"intent": l.Intent(Event{Text: "late", Intent: "x"}),
		"close":  l.Close(&Report{}),
	} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := create(t, t.TempDir(), nil).Intent(Event{Text: "nameless"}); err == nil {
		t.Error("an intent without a name was taken")
	}
}

func TestEventSurvivesJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.Rune())
		want := Event{
			Time:     time.Unix(rapid.Int64Range(0, 1<<36).Draw(t, "s"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).UTC(),
			Severity: rapid.SampledFrom([]Severity{Info, Warning, Error}).Draw(t, "severity"),
			Step:     StepStore,
			Path:     string(rapid.SliceOf(rapid.Byte()).Draw(t, "path")),
			Text:     text.Draw(t, "text"),
			Intent:   text.Draw(t, "intent"),
		}
		line, err := encodeLine(lineEvent, want)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(line), "\n"); n != 1 {
			t.Fatalf("%d lines", n)
		}
		s := scanner{keep: true}
		if err := s.take(line); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(s.events[0], want) {
			t.Fatalf("got %+v, want %+v", s.events[0], want)
		}
	})
}

func TestMillis(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0", time.Second: "1000", 1234567: "1.235", 499: "0", 90 * time.Minute: "5400000", -time.Millisecond: "-1"} {
		got, err := Millis(d).MarshalJSON()
		must(t, err)
		if string(got) != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
		var back Millis
		must(t, back.UnmarshalJSON(got))
		if diff := (d - time.Duration(back)).Abs(); diff > time.Microsecond {
			t.Errorf("%v came back as %v", d, time.Duration(back))
		}
	}
	if err := new(Millis).UnmarshalJSON([]byte(`"x"`)); err == nil {
		t.Error("a word is no time")
	}
}
