package job

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

var (
	twoOClock = time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC)
	events    = []Event{
		{Time: twoOClock, Severity: Info, Step: StepPlan, Text: "2 volumes, provider btrfs"},
		{Time: twoOClock.Add(time.Second), Severity: Info, Step: StepCapture, Volume: "4f0c5a6e-2b1d-4c53-9d3a-1f5e0a7c9b21/256", Intent: "snapshot/3fk2m5xq7a-0", Text: "about to take a snapshot", Data: map[string]any{"provider": "btrfs", "snapshot": "3fk2m5xq7a-0"}},
		{Time: twoOClock.Add(2 * time.Second), Severity: Warning, Step: StepStore, Path: "/srv/mail/in/17", Code: problem.FileUnreadable, Text: "input/output error"},
		{Time: twoOClock.Add(3 * time.Second), Severity: Warning, Step: StepStore, Path: "/srv/\x1b[2J\u202e\xff\n", Code: problem.FileVanished, Text: "no such file <&>"},
		{Time: twoOClock.Add(4 * time.Second), Severity: Info, Step: StepRelease, Done: "snapshot/3fk2m5xq7a-0", Text: "snapshot deleted"},
		{Time: twoOClock.Add(5 * time.Second), Severity: Error, Step: StepRecord, Code: problem.RepositoryFull, Text: "/backup/repo: write: no space left on device"},
		{Severity: Info, Step: StepLog, Text: "no clock"},
	}
	reports = map[string]Report{
		"complete": {
			Job: "3fk2m5xq7a", Kind: Backup, Status: Complete, Level: FileSystem, Backup: "9b1f0c2e7d", Started: twoOClock, Ended: twoOClock.Add(192 * time.Second),
			Took: Millis(192 * time.Second), OneInstant: true,
			Volumes: []VolumeReport{{
				ID: "4f0c5a6e-2b1d-4c53-9d3a-1f5e0a7c9b21/256", Mounts: []string{"/srv"}, Paths: []string{"/srv"}, Provider: "btrfs",
				Instant: twoOClock.Add(1234567890), OneInstant: true, Took: Millis(190 * time.Second),
				Counts: Counts{Files: 100000, Directories: 1234, Others: 17, Bytes: 4 << 30, FilesReused: 98000, BytesRead: 1288490188, BytesStored: 125829120},
			}},
			Total: Counts{Files: 100000, Directories: 1234, Others: 17, Bytes: 4 << 30, FilesReused: 98000, BytesRead: 1288490188, BytesStored: 125829120},
		},
		"exceptions": {
			Job: "3fk2m5xq7a", Kind: Backup, Status: CompleteWithExceptions, Level: FileSystem, Code: problem.FileUnreadable, Backup: "9b1f0c2e7d", Resumed: true,
			Started: twoOClock, Ended: twoOClock.Add(4000 * time.Second), Took: Millis(4000 * time.Second), Skew: Millis(4321 * time.Microsecond),
			Volumes: []VolumeReport{
				{ID: "4f0c5a6e-2b1d-4c53-9d3a-1f5e0a7c9b21/256", Mounts: []string{"/srv", "/mnt/same"}, Paths: []string{"/srv/mail", "/srv/www"}, Provider: "btrfs",
					Instant: twoOClock.Add(time.Second), Skew: Millis(321 * time.Microsecond), Hold: Millis(12345678), Took: Millis(time.Hour),
					Counts: Counts{Files: 1, Directories: 1, Bytes: 512, BytesRead: 512}},
				{ID: "4f0c5a6e-2b1d-4c53-9d3a-1f5e0a7c9b21/257", Mounts: []string{"/home"}, Paths: []string{"/home"}, Provider: "none", Took: Millis(30 * time.Second),
					Counts: Counts{Files: 5000, Directories: 300, Bytes: 9 << 30, FilesReused: 1, BytesRead: 9 << 30}},
			},
			Total:      Counts{Files: 5001, Directories: 301, Bytes: 9<<30 + 512, FilesReused: 1, BytesRead: 9<<30 + 512, BytesStored: 1 << 19},
			Exceptions: []Exceptions{{problem.FileUnreadable, 1200}, {problem.FileVanished, 3}},
			LeftOut: []LeftOut{
				{Reason: "excluded by *.tmp", Count: 1234, Names: []string{"/srv/a.tmp", "/srv/b\x07.tmp", "/srv/c.tmp", "/srv/d.tmp"}},
				{Reason: "the repository itself", Count: 1, Names: []string{"/srv/repo"}},
				{Reason: "tmpfs", Code: problem.VolumeMemory, Count: 2},
			},
		},
		"failed": {
			Job: "3fk2m5xq7a", Kind: Backup, Status: Failed, Code: problem.NoProvider, Text: "plan /srv: no provider can take this volume", Started: twoOClock, Took: Millis(12 * time.Millisecond),
		},
		"cancelled": {Job: "3fk2m5xq7a", Kind: Verify, Status: Cancelled, Code: problem.Cancelled, Text: "SIGTERM", Started: twoOClock, Took: Millis(61 * time.Second), Total: Counts{Files: 3, Bytes: 1000, BytesRead: 1000}},
		"damaged": {
			Job: "3fk2m5xq7a", Kind: Verify, Status: Failed, Code: problem.RepositoryDamaged, Text: "/backup/repo: 2 of the names cannot be restored", Started: twoOClock,
			Exceptions: []Exceptions{{problem.FileUnreadable, 2}},
		},
		"restore": {
			Job: "3fk2m5xq7a", Kind: Restore, Status: Complete, Backup: "9b1f0c2e7d", Started: twoOClock, Took: Millis(10 * time.Second),
			Total: Counts{Files: 1000, Directories: 20, Others: 3, Bytes: 1 << 30, FilesReused: 10, BytesWritten: 1 << 29},
		},
		"nothing": {},
	}
)

func TestRenderEvents(t *testing.T) {
	var b bytes.Buffer
	for _, e := range events {
		must(t, Render(&b, e))
	}
	golden(t, "events.txt", b.String())
	for i, r := range b.String() {
		if r != '\n' && r < ' ' || r == '\u202e' {
			t.Errorf("byte %d is %q: a terminal would obey it", i, r)
		}
	}
	if n := strings.Count(b.String(), "\n"); n != len(events) {
		t.Errorf("%d lines for %d events", n, len(events))
	}
}

func TestRenderReports(t *testing.T) {
	for name, r := range reports {
		var b bytes.Buffer
		must(t, RenderReport(&b, r))
		golden(t, "report-"+name+".txt", b.String())
		for line := range strings.Lines(b.String()) {
			if strings.TrimRight(line, " \n")+"\n" != line {
				t.Errorf("%s: blanks at the end of %q", name, line)
			}
		}
	}
}

// The bytes of a log are what programs rely on.
func TestLinesAreStable(t *testing.T) {
	var b bytes.Buffer
	add := func(kind string, v any) {
		line, err := encodeLine(kind, v)
		must(t, err)
		b.Write(line)
	}
	add(lineJob, Header{Format: 1, ID: "3fk2m5xq7a", Kind: Backup, Started: twoOClock, Host: "mail", User: "root", Command: []string{"stillpoint", "backup", "/srv"}, Version: "0.1.0", PID: 4711, BootID: "84235df2-a200-4ae3-a026-c0713a456335"})
	for _, e := range events {
		add(lineEvent, e)
	}
	for _, name := range []string{"exceptions", "nothing"} {
		add(lineReport, reports[name])
	}
	golden(t, "lines.jsonl", b.String())
}

// doc/json.md names every field, and no other.
func TestFieldsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "doc", "json.md"))
	must(t, err)
	_, section, ok := strings.Cut(string(doc), "\n## The job log\n")
	if !ok {
		t.Fatal("doc/json.md has no section on the job log")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(section, -1) {
		documented[m[1]] = true
	}
	var all bytes.Buffer
	files, err := filepath.Glob("*.go")
	must(t, err)
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") {
			src, err := os.ReadFile(file)
			must(t, err)
			all.Write(src)
		}
	}
	used := map[string]bool{}
	for _, m := range regexp.MustCompile("`json:\"([a-z_]+)[,\"]").FindAllStringSubmatch(all.String(), -1) {
		used[m[1]] = true
		if !documented[m[1]] {
			t.Errorf("doc/json.md does not say what %q is", m[1])
		}
	}
	for name := range documented {
		if !used[name] {
			t.Errorf("doc/json.md describes %q, which no line has", name)
		}
	}
	if len(used) < 50 {
		t.Errorf("only %d fields found", len(used))
	}
}

func TestFigures(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 1234: "0.001 ms", 850 * time.Millisecond: "850 ms", 999999600: "1.0 s", 59 * time.Second: "59.0 s",
		61 * time.Second: "1 min 1 s", 3600 * time.Second: "1 h 0 min", 100 * time.Hour: "100 h 0 min",
	} {
		if got := length(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 150 << 20: "150 MiB", 1 << 30: "1.0 GiB", math.MaxInt64: "8.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1000: "-1,000", -100: "-100", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestRenderReportsFailure(t *testing.T) {
	for _, err := range []error{Render(broken{}, events[0]), RenderReport(broken{}, reports["complete"])} {
		if !errors.Is(err, errBroken) {
			t.Errorf("%v", err)
		}
	}
}

type broken struct{}

var errBroken = errors.New("broken pipe")

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func TestTally(t *testing.T) {
	var tally Tally
	for i := range 30 {
		tally.LeftOut("", "excluded by *.tmp", fmt.Sprintf("/srv/%d.tmp", i))
	}
	tally.LeftOut(problem.VolumeMemory, "tmpfs", "/srv/run")
	tally.LeftOut(problem.VolumeNetwork, "nfs", "/srv/nfs")
	for _, c := range []problem.Code{problem.FileVanished, problem.FileChanged, problem.FileVanished, problem.AttributeUnread} {
		tally.Exception(c)
	}
	var r Report
	for range 2 { // filling twice changes nothing
		tally.Fill(&r)
	}
	if got, want := fmt.Sprint(r.Exceptions), "[{file-vanished 2} {attribute-unread 1} {file-changed 1}]"; got != want {
		t.Errorf("exceptions %s, want %s", got, want)
	}
	if len(r.LeftOut) != 3 || r.LeftOut[0].Count != 30 || len(r.LeftOut[0].Names) != NamesKept || r.LeftOut[1].Reason != "nfs" || r.LeftOut[2].Code != problem.VolumeMemory {
		t.Errorf("left out %+v", r.LeftOut)
	}
	var sum Counts
	sum.Add(Counts{1, 2, 3, 4, 5, 6, 7, 8})
	sum.Add(Counts{1, 2, 3, 4, 5, 6, 7, 8})
	if sum != (Counts{2, 4, 6, 8, 10, 12, 14, 16}) {
		t.Errorf("sum %+v", sum)
	}
}
