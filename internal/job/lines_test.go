package job

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
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
		{Time: twoOClock.Add(6 * time.Second), Severity: Warning, Step: StepStore, Path: "/srv/a", Code: problem.AttributeUnread, Text: "user.x: input/output error\nuser.y: input/output error"},
	}
	reports = map[string]Report{
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
			Exceptions: []Exceptions{{problem.FileUnreadable, 1200, []string{"/srv/mail/in/17", "/srv/\xff"}}, {problem.FileVanished, 3, nil}},
			LeftOut: []LeftOut{
				{Reason: "excluded by *.tmp", Count: 1234, Names: []string{"/srv/a.tmp", "/srv/b\x07.tmp", "/srv/c.tmp", "/srv/d.tmp"}},
				{Reason: "the repository itself", Count: 1, Names: []string{"/srv/repo"}},
				{Reason: "tmpfs", Code: problem.VolumeMemory, Count: 2},
			},
			Timeline: []Span{
				{Step: "plan", At: Millis(time.Millisecond), Took: Millis(20 * time.Millisecond)},
				{Capture: 1, Step: "hold", Provider: "btrfs", Volumes: []string{"4f0c5a6e-2b1d-4c53-9d3a-1f5e0a7c9b21/256"}, At: Millis(30 * time.Millisecond), Took: Millis(1234567)},
				{Capture: 1, Step: "freeze", Application: "redis:1", At: Millis(25 * time.Millisecond), Took: Millis(time.Millisecond), Failed: true},
			},
		},
		"names": {
			Job: "3fk2m5xq7a", Kind: Backup, Status: Complete, Backup: "9b1f0c2e7d", Started: twoOClock, Took: Millis(time.Second), OneInstant: true,
			Volumes:        []VolumeReport{{ID: "x", Mounts: []string{"/", "/m\xff"}, Paths: []string{"/p\xff", "/ä"}, Provider: "btrfs"}},
			LeftOut:        []LeftOut{{Reason: "excluded by \xff", Count: 2, Names: []string{"/srv/\xff", "/srv/\ufffd"}}},
			UnusedExcludes: []string{"*.none", "\xfe"},
		},
		"verify":  {Job: "3fk2m5xq7a", Kind: Verify, Status: Complete, Backups: 3, Started: twoOClock, Took: Millis(61 * time.Second), Total: Counts{Files: 3, Bytes: 1000}},
		"nothing": {},
	}
)

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
	for _, name := range []string{"exceptions", "names", "verify", "nothing"} {
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
		m[1] = strings.TrimSuffix(m[1], "_bytes") // described for all at once
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

// Names that are no Unicode come back from a log as they were.
func TestNamesOfAnyBytes(t *testing.T) {
	dir := t.TempDir()
	l, err := Create(dir, Start{Kind: Backup, Args: []string{"stillpoint", "backup", "/\xff"}})
	must(t, err)
	want := reports["names"]
	must(t, l.Close(&want))
	j := load(t, dir, l.ID())
	got := *j.Report
	if !reflect.DeepEqual(got.Volumes, want.Volumes) || !slices.Equal(got.LeftOut[0].Names, want.LeftOut[0].Names) || !slices.Equal(got.UnusedExcludes, want.UnusedExcludes) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if fmt.Sprintf("%q", j.CommandBytes) != `["stillpoint" "backup" "/\xff"]` {
		t.Errorf("command %q", j.CommandBytes)
	}
}

func TestTally(t *testing.T) {
	var tally Tally
	for i := range 30 {
		tally.LeftOut("", "excluded by *.tmp", fmt.Sprintf("/srv/%d.tmp", i))
	}
	tally.LeftOut(problem.VolumeMemory, "tmpfs", "/srv/run")
	tally.LeftOut(problem.VolumeNetwork, "nfs", "/srv/nfs")
	for _, c := range []problem.Code{problem.FileVanished, problem.FileChanged, problem.FileVanished, problem.AttributeUnread} {
		tally.Exception(c, "/srv/"+string(c))
	}
	var r Report
	for range 2 { // filling twice changes nothing
		tally.Fill(&r)
	}
	if got, want := fmt.Sprint(r.Exceptions), "[{file-vanished 2 [/srv/file-vanished /srv/file-vanished]} {attribute-unread 1 [/srv/attribute-unread]} {file-changed 1 [/srv/file-changed]}]"; got != want {
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
