package page

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

const ms = job.Millis(time.Millisecond)

var twoOClock = time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC)

// evil are names that would rather be something else.
var evil = []string{
	`/srv/</style><script>document.title="evil"</script>`, `/srv/" onmouseover="x`, "/srv/\xff\x1b[2J", "/srv/\u202etxt", `/srv/{{.Job}}`, "/srv/a\nb", `/srv/javascript:alert(1)`,
}

// sample is a job with something of everything.
func sample() job.Job {
	r := &job.Report{
		Job: "3fk2m5xq7a", Kind: job.Backup, Status: job.CompleteWithExceptions, Level: job.Application, Code: problem.FileUnreadable, Backup: "3fk2m5xq7a",
		Started: twoOClock, Ended: twoOClock.Add(192 * time.Second), Took: job.Millis(192 * time.Second), OneInstant: true,
		Volumes: []job.VolumeReport{
			{ID: "4f0c-ext4", Mounts: []string{"/srv"}, Paths: []string{"/srv/mail", "/srv/www"}, Provider: "cow", Instant: twoOClock.Add(1850 * time.Millisecond), OneInstant: true, Hold: 38 * ms,
				Cache: &job.Cache{Dir: "/var/cache/stillpoint", Used: 83 << 20, Maximum: 20 << 30}, Counts: job.Counts{Files: 98000, Bytes: 3 << 30, BytesRead: 1 << 30}},
			{ID: "77aa-xfs", Mounts: []string{"/var/lib/postgresql"}, Paths: []string{"/var/lib/postgresql"}, Provider: "cow", Instant: twoOClock.Add(1850 * time.Millisecond), OneInstant: true, Hold: 31 * ms, Counts: job.Counts{Files: 2000, Bytes: 1 << 30, BytesRead: 200 << 20}},
			{ID: "99bb/256", Mounts: []string{"/home"}, Paths: []string{"/home"}, Provider: "btrfs", Instant: twoOClock.Add(1840 * time.Millisecond), OneInstant: true, Counts: job.Counts{Files: 12, Bytes: 1 << 20}},
		},
		Applications: []job.ApplicationReport{
			{ID: "postgresql:/var/lib/postgresql/15/main", Writer: "postgresql", Version: "15.4", Paths: []string{"/var/lib/postgresql"}, AtRest: true, Attempts: 1, Rested: 61 * ms},
			{ID: "redis:/run/redis.sock", Writer: "redis", Version: "7.0", Treated: "crash", Attempts: 4, Code: problem.WriterTimeout, Text: "it did not come to rest within 60 s\nits log may say why"},
		},
		Total:      job.Counts{Files: 100012, Directories: 1234, Others: 17, Bytes: 4<<30 + 1<<20, FilesReused: 98000, BytesRead: 1288490188, BytesStored: 125829120},
		Exceptions: []job.Exceptions{{Code: problem.FileUnreadable, Count: 1200, Names: evil}, {Code: problem.WriterTimeout, Count: 1, Names: []string{"redis:/run/redis.sock"}}},
		LeftOut: []job.LeftOut{
			{Reason: "excluded by *.tmp", Count: 1234, Names: []string{"/srv/a.tmp", "/srv/b.tmp"}},
			{Reason: "tmpfs", Code: problem.VolumeMemory, Count: 1, Names: []string{"/srv/run"}},
		},
		UnusedExcludes: []string{"*.none", "</main>"},
	}
	all := []string{"4f0c-ext4", "77aa-xfs"}
	r.Timeline = []job.Span{
		{Step: "plan", At: 20 * ms, Took: 110 * ms}, {Step: "capture", At: 130 * ms, Took: 1790 * ms},
		{Step: "store", At: 1950 * ms, Took: 186000 * ms}, {Step: "record", At: 188000 * ms, Took: 900 * ms}, {Step: "release", At: 189000 * ms, Took: 600 * ms},
		{Capture: 1, Step: "prepare", Provider: "cow", Volumes: all, At: 140 * ms, Took: 1100 * ms},
		{Capture: 1, Step: "prepare", Provider: "btrfs", Volumes: []string{"99bb/256"}, At: 1240 * ms, Took: 8 * ms},
		{Capture: 1, Step: "prepare", Application: r.Applications[0].ID, At: 1250 * ms, Took: 30 * ms},
		{Capture: 1, Step: "quiet", At: 1280 * ms, Took: 500 * ms},
		{Capture: 1, Step: "freeze", Application: r.Applications[0].ID, At: 1790 * ms, Took: 12 * ms},
		{Capture: 1, Step: "rest", Application: r.Applications[0].ID, At: 1802 * ms, Took: 48 * ms},
		{Capture: 1, Step: "hold", Provider: "cow", Volumes: all, At: 1803 * ms, Took: 35 * ms},
		{Capture: 1, Step: "commit", Provider: "btrfs", Volumes: []string{"99bb/256"}, At: 1838 * ms, Took: 4 * ms},
		{Capture: 1, Step: "commit", Provider: "cow", Volumes: all, At: 1842 * ms, Took: 8 * ms},
		{Capture: 1, Step: "resume", Provider: "cow", Volumes: all, At: 1850 * ms, Took: 2 * ms},
		{Capture: 1, Step: "thaw", Application: r.Applications[0].ID, At: 1850 * ms, Took: 6 * ms},
	}
	j := job.Job{Summary: job.Summary{Header: job.Header{ID: r.Job, Kind: r.Kind, Host: "mail", Version: "0.3", Command: []string{"stillpoint", "backup", "/srv", "</footer>"}}, Status: r.Status}, Report: r}
	for _, name := range evil {
		j.Events = append(j.Events, job.Event{Severity: job.Warning, Step: job.StepStore, Path: name, Code: problem.FileUnreadable, Text: "open: permission denied <b>"})
	}
	j.Events = append(j.Events, job.DirectoriesEvent([]job.Directory{
		{Path: "/srv", Files: 98000, Bytes: 3 << 30}, {Path: "/srv/mail", Files: 90000, Bytes: 2 << 30}, {Path: "/srv/mail/in", Files: 50000, Bytes: 1 << 30},
		{Path: "/srv/www", Files: 8000, Bytes: 1 << 29}, {Path: evil[0], Files: 7, Bytes: 1 << 28}, {Path: "/var/lib/postgresql", Files: 2000, Bytes: 1 << 30}, {Path: "/home", Files: 12, Bytes: 1 << 20},
	}))
	return j
}

func written(t *testing.T, j job.Job) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, j); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Nothing in a page is active, or comes from elsewhere, whatever the names are.
func TestNothingActive(t *testing.T) {
	page := written(t, sample())
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	ids, texts := map[string]bool{}, ""
	var links []string
	for n := range doc.Descendants() {
		switch n.Type {
		case html.TextNode:
			texts += n.Data
		case html.ElementNode:
			if slices.Contains([]string{"script", "img", "link", "iframe", "object", "form", "base", "b"}, n.Data) {
				t.Errorf("there is an element <%s>", n.Data)
			}
			for _, a := range n.Attr {
				switch {
				case a.Key == "style", strings.HasPrefix(a.Key, "on"), a.Key == "src":
					t.Errorf("<%s> has %s=%q", n.Data, a.Key, a.Val)
				case a.Key == "href":
					links = append(links, a.Val)
				case a.Key == "id":
					ids[a.Val] = true
				}
			}
		}
	}
	for _, l := range links {
		if !strings.HasPrefix(l, "#") && !strings.HasPrefix(l, "https://") || strings.HasPrefix(l, "#") && !ids[l[1:]] {
			t.Errorf("a link to %q", l)
		}
	}
	for _, want := range []string{evil[0], evil[1], `/srv/\xff\x1b[2J`, `/srv/\u202etxt`, evil[4], `/srv/a\nb`, evil[6], "</main>", "</footer>", "open: permission denied <b>"} {
		if !strings.Contains(texts, want) {
			t.Errorf("%q is not shown", want)
		}
	}
	for _, want := range []string{"with exceptions", "all of one instant", "38 ms", "83.0 MiB of 20.0 GiB", "What to do", "excluded by *.tmp", "and 1,193 more", "hold 35 ms", "its log may say why", "files and smaller directories", "while applications rested"} {
		if !strings.Contains(texts, want) {
			t.Errorf("%q is not shown", want)
		}
	}
}

// A job of which little is known has a page, too.
func TestLittleKnown(t *testing.T) {
	for name, j := range map[string]job.Job{
		"nothing": {},
		"died":    {Summary: job.Summary{Header: job.Header{ID: "a", Kind: job.Backup, Started: twoOClock}, Status: job.Died, Code: problem.JobDied}},
		"verify":  {Report: &job.Report{Kind: job.Verify, Status: job.Failed, Code: problem.RepositoryDamaged, Text: "a\nb", Exceptions: []job.Exceptions{{Code: problem.FileUnreadable, Count: 2}}}},
		"odd":     {Report: &job.Report{Code: "nobody-knows", Timeline: []job.Span{{Step: "x"}}, Exceptions: []job.Exceptions{{Code: "<", Count: 1}}}},
	} {
		page := written(t, j)
		if !strings.HasSuffix(page, "</html>\n") || strings.Contains(page, "NaN") || strings.Contains(page, "Inf") {
			t.Errorf("%s: ends with %q", name, page[max(0, len(page)-2000):])
		}
	}
}

// What was found before a job is on its page, with the pages of its codes.
func TestWarnings(t *testing.T) {
	j := job.Job{Report: &job.Report{Kind: job.Backup, Status: job.Complete}}
	for range NamesShown + 7 {
		j.Report.Warnings = append(j.Report.Warnings, job.Concern{Code: problem.ConfigWrong, Subject: "/etc/<b>", Text: "the job\nbad cannot run"})
	}
	j.Report.Warnings = append(j.Report.Warnings, job.Concern{Code: problem.HostBusy, Text: "everything waited"})
	page := written(t, j)
	for _, want := range []string{"57 × <a href=\"#code-config-wrong\"", "/etc/&lt;b&gt;", "the job; bad cannot run", "and 7 more", "everything waited", "id=\"code-host-busy\""} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not shown", want)
		}
	}
	died := written(t, job.Job{Summary: job.Summary{Header: job.Header{ID: "a", Kind: job.Backup, Started: twoOClock}, Status: job.Died, Code: problem.JobDied, Ended: twoOClock}})
	for _, want := range []string{"ended without closing the log", "id=\"code-job-died\""} {
		if !strings.Contains(died, want) {
			t.Errorf("of a job that died %q is not shown", want)
		}
	}
}

// A report is bounded, whatever happened.
func TestBounded(t *testing.T) {
	j := sample()
	wants := Wants()
	j.Events = nil
	for i := range 100000 {
		e := job.Event{Step: job.StepStore, Path: fmt.Sprint("/srv/", i), Code: problem.FileUnreadable, Text: "x"}
		if wants(e) {
			j.Events = append(j.Events, e)
		}
	}
	for i := range 2000 {
		j.Report.Timeline = append(j.Report.Timeline, job.Span{Capture: 1 + i%100, Step: "hold", Provider: "p", Volumes: []string{fmt.Sprint(i)}, At: 5 * ms, Took: job.Millis(i)})
	}
	if n := len(j.Events); n != NamesShown {
		t.Errorf("%d events are wanted", n)
	}
	if n := len(written(t, j)); n > 400<<10 {
		t.Errorf("the page has %d bytes", n)
	}
}

// Bars are where their times are.
func TestToScale(t *testing.T) {
	f := drawn("x", "", []row{{spans: []job.Span{{Step: "a", At: 10 * ms, Took: 10 * ms}, {Step: "b", At: 40 * ms, Took: 70 * ms}}}}, 10*ms, 110*ms)
	if got := fmt.Sprint(f.Rows[0].Bars); got != "[{a 0.000 10.000 a 10 ms} {b 30.000 70.000 b 70 ms}]" {
		t.Errorf("bars %s", got)
	}
	for length, want := range map[job.Millis]int{100 * ms: 6, 37 * ms: 4, 192000 * ms: 4, 1: 6, 999 * ms: 5} {
		if got := ticks(length); len(got) != want || got[0].X != "0.000" {
			t.Errorf("%v has %d ticks: %v", time.Duration(length), len(got), got)
		}
	}
}

// The page for people to look at: STILLPOINT_TEST_PAGE=FILE writes it.
func TestLookAt(t *testing.T) {
	file := os.Getenv("STILLPOINT_TEST_PAGE")
	if file == "" {
		file = filepath.Join(t.TempDir(), "page.html")
	}
	if err := os.WriteFile(file, []byte(written(t, sample())), 0o600); err != nil {
		t.Fatal(err)
	}
}
