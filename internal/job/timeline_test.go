package job

import (
	"reflect"
	"testing"

	"stillpoint/internal/problem"
)

// An excerpt has the events that are wanted, and everything else that the whole
// log tells; sizes by directory come back with names of any bytes.
func TestExcerpt(t *testing.T) {
	dir := t.TempDir()
	l, err := Create(dir, Start{Kind: Backup})
	must(t, err)
	want := []Directory{{"/srv", 10, 1 << 40}, {"/srv/\xff\n", 3, 7}}
	must(t, l.Intent(Event{Step: StepCapture, Text: "about to", Intent: "x"}))
	for range 100 {
		must(t, l.Add(Event{Step: StepStore, Path: "/srv/a", Code: problem.FileVanished, Text: "gone"}))
	}
	must(t, l.Add(DirectoriesEvent(want)))
	must(t, l.Close(&Report{Status: Complete, Backup: "b"}))

	j, err := Excerpt(dir, l.ID(), func(e Event) bool { return e.Step == StepRecord })
	must(t, err)
	if len(j.Events) != 1 || j.Report == nil || j.Backup != "b" || len(j.OpenIntents) != 1 {
		t.Errorf("%d events, %+v", len(j.Events), j.Summary)
	}
	if got := j.Directories(); !reflect.DeepEqual(got, want) {
		t.Errorf("directories %+v", got)
	}
	if j, err = Excerpt(dir, l.ID(), func(Event) bool { return false }); err != nil || len(j.Events) != 0 || j.Directories() != nil {
		t.Errorf("nothing wanted: %+v, %v", j, err)
	}
	all, err := Load(dir, l.ID())
	must(t, err)
	if len(all.Events) != 102 {
		t.Errorf("%d events in all", len(all.Events))
	}
	// What looks like it and is another's is nothing.
	odd := Job{Events: []Event{{Step: StepRecord, Data: map[string]any{"directories": "many"}}}}
	if got := odd.Directories(); got != nil {
		t.Errorf("%+v", got)
	}
}
