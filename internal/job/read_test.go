package job

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

// ended puts the log of a job that started at this time into dir.
func ended(t *testing.T, dir, id string, started time.Time) {
	t.Helper()
	header, err := encodeLine(lineJob, Header{Format: 1, ID: id, Kind: Backup, Started: started})
	must(t, err)
	report, err := encodeLine(lineReport, Report{Job: id, Kind: Backup, Status: Complete, Started: started, Ended: started})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, id+suffix), append(header, report...), 0o600))
}

func ids(jobs []Summary) string {
	var all []string
	for _, j := range jobs {
		all = append(all, j.ID)
	}
	return strings.Join(all, " ")
}

func TestLoadByPrefix(t *testing.T) {
	dir := t.TempDir()
	for i, id := range []string{"abcdefghij", "abcdefgh22", "xyzxyzxyz2"} {
		ended(t, dir, id, time.Unix(int64(i), 0))
	}
	must(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600))
	// Neither of these is a log of ours.
	must(t, os.WriteFile(filepath.Join(dir, "notes.jsonl"), []byte("x\n"), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "ffffffffff.jsonl"), 0o700))
	must(t, os.Symlink("abcdefghij.jsonl", filepath.Join(dir, "gggggggggg.jsonl")))
	if list, err := List(dir); err != nil || ids(list) != "xyzxyzxyz2 abcdefgh22 abcdefghij" {
		t.Errorf("list %s, %v", ids(list), err)
	}
	for given, want := range map[string]string{
		"abcdefghij": "abcdefghij", "abcdefghi": "abcdefghij", "abcdefgh2": "abcdefgh22", "x": "xyzxyzxyz2", "XYZ": "xyzxyzxyz2",
	} {
		if j, err := Load(dir, given); err != nil || j.ID != want {
			t.Errorf("%s: %s, %v", given, j.ID, err)
		}
	}
	for given, want := range map[string]problem.Code{
		"abc": problem.JobAmbiguous, "abcdefgh": problem.JobAmbiguous,
		"": problem.NoSuchJob, "q": problem.NoSuchJob, "abcdefghijk": problem.NoSuchJob,
		"secret": problem.NoSuchJob, "../jobs/abcdefghij": problem.NoSuchJob, "abcdefghij.jsonl": problem.NoSuchJob, "*": problem.NoSuchJob,
	} {
		_, err := Load(dir, given)
		if problem.CodeOf(err) != want {
			t.Errorf("%q: %v", given, err)
		}
		if want == problem.JobAmbiguous && !strings.Contains(err.Error(), "abcdefgh22, abcdefghij") {
			t.Errorf("%q does not say which: %v", given, err)
		}
	}
}

// The clock may have been set back between two jobs, and within one.
func TestClockSetBack(t *testing.T) {
	dir := t.TempDir()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	first := create(t, dir, func() time.Time { return noon })
	must(t, first.Close(&Report{Status: Complete}))

	clock := &ticker{noon.Add(-time.Hour), -time.Minute}
	second := create(t, dir, clock.now)
	for _, text := range []string{"one", "two", "three"} {
		must(t, second.Add(Event{Text: text}))
	}
	r := Report{Status: Complete}
	must(t, second.Close(&r))
	if r.Took != 0 || r.Ended.After(r.Started) {
		t.Errorf("took %v, %v to %v", r.Took, r.Started, r.Ended)
	}
	j := load(t, dir, second.ID())
	if got := texts(j.Events); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("events are not in the order of the job: %q", got)
	}
	list, err := List(dir)
	must(t, err)
	if ids(list) != first.ID()+" "+second.ID() {
		t.Errorf("list %s", ids(list))
	}
	if n, err := Prune(dir, 1); err != nil || n != 1 {
		t.Errorf("pruned %d, %v", n, err)
	}
}

// The real clock may be set back, too; how long a job took stays true.
func TestTookIsMonotonic(t *testing.T) {
	l := create(t, t.TempDir(), nil)
	time.Sleep(20 * time.Millisecond)
	l.header.Started = l.header.Started.Add(time.Hour) // as if the clock had been an hour ahead
	var r Report
	must(t, l.Close(&r))
	if took := time.Duration(r.Took); took < 20*time.Millisecond || took > time.Minute {
		t.Errorf("took %v", took)
	}
}

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	// The oldest two are a running and a dead one.
	running := create(t, dir, func() time.Time { return time.Unix(1, 0) })
	dead := create(t, dir, func() time.Time { return time.Unix(2, 0) })
	dead.file.Close()
	for i := range 20 {
		ended(t, dir, fmt.Sprintf("aaaaaaaa%c%c", 'a'+i/5, 'a'+i%5), time.Unix(int64(100+i), 0))
	}
	must(t, os.WriteFile(filepath.Join(dir, "README"), []byte("not ours"), 0o600))

	if n, err := Prune(dir, 22); err != nil || n != 0 {
		t.Errorf("nothing to prune: %d, %v", n, err)
	}
	if n, err := Prune(dir, 5); err != nil || n != 15 {
		t.Errorf("pruned %d, %v", n, err)
	}
	list, err := List(dir)
	must(t, err)
	want := "aaaaaaaade aaaaaaaadd aaaaaaaadc aaaaaaaadb aaaaaaaada " + dead.ID() + " " + running.ID()
	if ids(list) != want {
		t.Errorf("left: %s, want %s", ids(list), want)
	}
	if _, err := os.Stat(filepath.Join(dir, "README")); err != nil {
		t.Error(err)
	}
}

// A list of the logs that Prune leaves is there at once, however long they are.
func TestListReadsOnlyTheEnds(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir, nil)
	for range 20000 {
		must(t, l.Add(Event{Severity: Warning, Step: StepStore, Code: problem.FileVanished, Path: "/srv/spool/in/message", Text: "vanished"}))
	}
	r := Report{Status: Complete}
	for i := range 600 { // longer than the first piece that is read from the end
		r.LeftOut = append(r.LeftOut, LeftOut{Reason: fmt.Sprintf("rule %d", i), Count: 1})
	}
	must(t, l.Close(&r))
	info, err := os.Stat(filepath.Join(dir, l.ID()+suffix))
	must(t, err)
	before := bytesRead(t)
	list, err := List(dir)
	must(t, err)
	read := bytesRead(t) - before
	if len(list) != 1 || list[0].Status != Complete || list[0].Kind != Backup {
		t.Errorf("%+v", list)
	}
	if read > info.Size()/5 {
		t.Errorf("%d bytes read of a log of %d", read, info.Size())
	}
	if j := load(t, dir, l.ID()); len(j.Events) != 20000 || len(j.Report.LeftOut) != 600 {
		t.Errorf("%d events, %d reasons", len(j.Events), len(j.Report.LeftOut))
	}
}

// bytesRead is what this process has read so far, by proc(5).
func bytesRead(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	must(t, err)
	var n int64
	_, err = fmt.Sscanf(string(b), "rchar: %d", &n)
	must(t, err)
	return n
}

func TestDefaultDir(t *testing.T) {
	for name, c := range map[string]struct {
		uid  int
		env  map[string]string
		want string
	}{
		"root":                  {0, map[string]string{"HOME": "/root", "XDG_STATE_HOME": "/x"}, "/var/lib/stillpoint/jobs"},
		"named":                 {0, map[string]string{"STILLPOINT_STATE": "/mnt/state/"}, "/mnt/state/jobs"},
		"user":                  {1000, map[string]string{"HOME": "/home/a"}, "/home/a/.local/state/stillpoint/jobs"},
		"user with XDG":         {1000, map[string]string{"HOME": "/home/a", "XDG_STATE_HOME": "/x"}, "/x/stillpoint/jobs"},
		"relative XDG":          {1000, map[string]string{"HOME": "/home/a", "XDG_STATE_HOME": "x"}, "/home/a/.local/state/stillpoint/jobs"},
		"user, named":           {1000, map[string]string{"HOME": "/home/a", "STILLPOINT_STATE": "/s"}, "/s/jobs"},
		"user without anything": {1000, nil, ""},
	} {
		got, err := defaultDir(func(k string) string { return c.env[k] }, c.uid)
		if got != c.want || (c.want == "") != problem.Is(err, problem.StateLost) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	t.Setenv("STILLPOINT_STATE", "/elsewhere")
	if got, err := DefaultDir(); err != nil || got != "/elsewhere/jobs" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSecretsAreNotKept(t *testing.T) {
	for given, want := range map[string]string{
		"stillpoint backup /srv --exclude *.tmp":         "stillpoint backup /srv --exclude *.tmp",
		"stillpoint backup --password-file /etc/p /srv":  "stillpoint backup --password-file /etc/p /srv",
		"stillpoint backup --password-file=/etc/p":       "stillpoint backup --password-file=/etc/p",
		"stillpoint backup --password geheim /srv":       "stillpoint backup --password *** /srv",
		"stillpoint backup --password=geheim /srv":       "stillpoint backup --password=*** /srv",
		"stillpoint x --s3-secret-access-key geheim":     "stillpoint x --s3-secret-access-key ***",
		"env STILLPOINT_PASSWORD=geheim stillpoint x":    "env STILLPOINT_PASSWORD=*** stillpoint x",
		"env AWS_SECRET_ACCESS_KEY=geheim stillpoint x":  "env AWS_SECRET_ACCESS_KEY=*** stillpoint x",
		"stillpoint backup --repo sftp://u:geheim@h/p":   "stillpoint backup --repo sftp://u:***@h/p",
		"stillpoint backup --repo=s3://u:ge@he%im@h:1/p": "stillpoint backup --repo=s3://u:***@h:1/p",
		"stillpoint backup --repo sftp://u@h:22/p@q":     "stillpoint backup --repo sftp://u@h:22/p@q",
		"stillpoint restore b:/srv/a@b --to /x":          "stillpoint restore b:/srv/a@b --to /x",
		"stillpoint backup /srv/key=value --exclude a=b": "stillpoint backup /srv/key=value --exclude a=b",
	} {
		if got := strings.Join(redact(strings.Fields(given)), " "); got != want {
			t.Errorf("%s\n became %s\n wanted %s", given, got, want)
		}
	}
}
