package text

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	time.Local = time.UTC // for the golden files
	os.Exit(m.Run())
}

var (
	twoOClock = time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC)
	reports   = map[string]job.Report{
		"complete": {
			Job: "3fk2m5xq7a", Kind: job.Backup, Status: job.Complete, Level: job.FileSystem, Backup: "9b1f0c2e7d", Started: twoOClock, Ended: twoOClock.Add(192 * time.Second),
			Took: job.Millis(192 * time.Second), OneInstant: true,
			Volumes: []job.VolumeReport{{
				ID: "4f0c5a6e-2b1d-4c53-9d3a-1f5e0a7c9b21/256", Mounts: []string{"/srv"}, Paths: []string{"/srv"}, Provider: "btrfs",
				Instant: twoOClock.Add(1234567890), OneInstant: true, Took: job.Millis(190 * time.Second),
				Counts: job.Counts{Files: 100000, Directories: 1234, Others: 17, Bytes: 4 << 30, FilesReused: 98000, BytesRead: 1288490188, BytesStored: 125829120},
			}},
			Total: job.Counts{Files: 100000, Directories: 1234, Others: 17, Bytes: 4 << 30, FilesReused: 98000, BytesRead: 1288490188, BytesStored: 125829120},
		},
		"failed": {
			Job: "3fk2m5xq7a", Kind: job.Backup, Status: job.Failed, Code: problem.NoProvider, Text: "plan /srv: no provider can take this volume", Started: twoOClock, Took: job.Millis(12 * time.Millisecond),
		},
		"cancelled": {Job: "3fk2m5xq7a", Kind: job.Verify, Status: job.Cancelled, Code: problem.Cancelled, Text: "SIGTERM", Started: twoOClock, Took: job.Millis(61 * time.Second), Total: job.Counts{Files: 3, Bytes: 1000, BytesRead: 1000}},
		"damaged": {
			Job: "3fk2m5xq7a", Kind: job.Verify, Status: job.Failed, Code: problem.RepositoryDamaged, Text: "/backup/repo: 2 of the names cannot be restored", Started: twoOClock,
			Exceptions: []job.Exceptions{{Code: problem.FileUnreadable, Count: 2}},
		},
		"restore": {
			Job: "3fk2m5xq7a", Kind: job.Restore, Status: job.Complete, Backup: "9b1f0c2e7d", Started: twoOClock, Took: job.Millis(10 * time.Second),
			Total: job.Counts{Files: 1000, Directories: 20, Others: 3, Bytes: 1 << 30, FilesReused: 10, BytesWritten: 1 << 29},
		},
		"errors": {
			Job: "3fk2m5xq7a", Kind: job.Restore, Status: job.Failed, Code: problem.TargetFull, Text: "/a: no space left\n/b: no space left", Started: twoOClock,
		},
	}
)

// lines reads the events and reports that package job keeps as its example.
func lines(t *testing.T) (events []job.Event) {
	t.Helper()
	b, err := os.ReadFile("../testdata/lines.jsonl")
	must(t, err)
	names := []string{"exceptions", "names", "verify", "nothing"}
	for line := range bytes.Lines(b) {
		var is struct {
			Type string `json:"type"`
		}
		must(t, json.Unmarshal(line, &is))
		switch is.Type {
		case "event":
			var e job.Event
			must(t, json.Unmarshal(line, &e))
			events = append(events, e)
		case "report":
			var r job.Report
			must(t, json.Unmarshal(line, &r))
			reports[names[0]], names = r, names[1:]
		}
	}
	return events
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := "testdata/" + name
	if *update {
		must(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if got != string(want) {
		t.Errorf("%s differs (rewrite it with -update); got:\n%s", file, got)
	}
}

func TestEvents(t *testing.T) {
	var b bytes.Buffer
	events := lines(t)
	for _, e := range events {
		must(t, Event(&b, e))
	}
	golden(t, "events.txt", b.String())
	for i, r := range b.String() {
		if r != '\n' && r < ' ' || r == '\u202e' {
			t.Errorf("byte %d is %q: a terminal would obey it", i, r)
		}
	}
	if n := strings.Count(b.String(), "\n"); n != len(events)+1 { // one has two errors
		t.Errorf("%d lines for %d events", n, len(events))
	}
}

func TestReports(t *testing.T) {
	lines(t)
	if len(reports) != 10 {
		t.Fatalf("%d reports", len(reports))
	}
	for name, r := range reports {
		var b bytes.Buffer
		must(t, Report(&b, r))
		golden(t, "report-"+name+".txt", b.String())
		for line := range strings.Lines(b.String()) {
			if strings.TrimRight(line, " \n")+"\n" != line {
				t.Errorf("%s: blanks at the end of %q", name, line)
			}
		}
	}
}

func TestFigures(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 1234: "0.001 ms", 850 * time.Millisecond: "850 ms", 999999600: "1.0 s", 59 * time.Second: "59.0 s",
		61 * time.Second: "1 min 1 s", 3600 * time.Second: "1 h 0 min", 100 * time.Hour: "100 h 0 min",
	} {
		if got := Length(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 150 << 20: "150 MiB", 1 << 30: "1.0 GiB", math.MaxInt64: "8.0 EiB"} {
		if got := Size(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1000: "-1,000", -100: "-100", 1234567: "1,234,567"} {
		if got := Thousands(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestFailure(t *testing.T) {
	for _, err := range []error{Event(broken{}, job.Event{}), Report(broken{}, reports["complete"])} {
		if !errors.Is(err, errBroken) {
			t.Errorf("%v", err)
		}
	}
}

type broken struct{}

var errBroken = errors.New("broken pipe")

func (broken) Write([]byte) (int, error) { return 0, errBroken }
