package backup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/fake"
)

// The report tells when each step was, also of the capture that failed before.
func TestTimeline(t *testing.T) {
	tr, d := withDatabase(t)
	passes := []error{problem.Newf(problem.WriterTimeout, "", "too slow")}
	d.freeze = func() (err error) {
		if len(passes) > 0 {
			err, passes = passes[0], passes[1:]
		}
		return err
	}
	rep, err := tr.try(Options{})
	tr.must(err)
	at := func(capture int, step, of string) job.Span {
		t.Helper()
		i := slices.IndexFunc(rep.Timeline, func(s job.Span) bool {
			return s.Capture == capture && s.Step == step && strings.HasPrefix(s.Provider+s.Application, of)
		})
		if i < 0 {
			t.Fatalf("capture %d has no step %s of %q: %+v", capture, step, of, rep.Timeline)
		}
		return rep.Timeline[i]
	}
	if s := at(1, "freeze", "database:1"); !s.Failed {
		t.Errorf("%+v", s)
	}
	order := []job.Span{at(0, "plan", ""), at(1, "prepare", "fake"), at(2, "prepare", "fake"), at(2, "freeze", "database:1"), at(2, "hold", "fake"), at(2, "commit", "fake"), at(2, "resume", "fake"), at(0, "store", ""), at(0, "record", ""), at(0, "release", "")}
	for i, s := range order {
		if s.Failed || s.At < 0 || s.End() > rep.Took || i > 0 && s.At < order[i-1].At {
			t.Errorf("%+v, of %+v", s, rep.Timeline)
		}
	}
	rest, hold := at(2, "rest", "database:1"), at(2, "hold", "fake")
	if len(hold.Volumes) != 1 || hold.Volumes[0] != rep.Volumes[0].ID || hold.At < rest.At || hold.End() > rest.End() {
		t.Errorf("hold %+v, rest %+v", hold, rest)
	}
	if j, err := job.Load(tr.JobDir, rep.Job); err != nil || len(j.Report.Timeline) != len(rep.Timeline) {
		t.Errorf("in the log: %+v, %v", j.Report, err)
	}
}

// A job that fails tells how far it came.
func TestTimelineOfFailure(t *testing.T) {
	tr := newTrial(t, fake.Options{})
	tr.at, tr.times, tr.how = "commit", 1, tr.fail
	rep, err := tr.try(Options{})
	if err == nil {
		t.Fatal("no failure")
	}
	failed := slices.ContainsFunc(rep.Timeline, func(s job.Span) bool { return s.Capture == 1 && s.Step == "commit" && s.Failed })
	if !failed || slices.ContainsFunc(rep.Timeline, func(s job.Span) bool { return s.Step == "store" }) {
		t.Errorf("%+v", rep.Timeline)
	}
}

// The sizes by directory are those that a user would count, the largest of them,
// to some depth.
func TestSizes(t *testing.T) {
	r := newRig(t)
	for i := range 2 * sizesTold {
		r.random(fmt.Sprintf("src/many/%03d/file", i), 10000+i)
	}
	r.random("src/a/b/c/d/e/f/deep", 3*mib)
	r.random("src/\xff\n/odd", 2*mib)
	r.must(os.MkdirAll(r.path("src/empty"), 0o755))
	rep := r.backup(Options{})
	j, err := job.Load(r.JobDir, rep.Job)
	r.must(err)
	told := map[string]job.Directory{}
	for _, d := range j.Directories() {
		told[strings.TrimPrefix(d.Path, r.dir+"/")] = d
	}
	if len(told) != sizesTold || len(told) != len(j.Directories()) {
		t.Errorf("%d are told", len(told))
	}
	for name, files := range map[string]int64{"src": 2*sizesTold + 2, "src/many": 2 * sizesTold, "src/a/b/c/d": 1, "src/\xff\n": 1, fmt.Sprintf("src/many/%03d", 2*sizesTold-1): 1} {
		var bytes int64
		r.must(filepath.WalkDir(r.path(name), func(_ string, e os.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				fi, err := e.Info()
				bytes += fi.Size()
				return err
			}
			return err
		}))
		if d := told[name]; d.Files != files || d.Bytes != bytes {
			t.Errorf("%q has %+v, want %d files of %d bytes", name, d, files, bytes)
		}
	}
	for _, name := range []string{"src/empty", "src/a/b/c/d/e", "src/many/000"} {
		if _, ok := told[name]; ok {
			t.Errorf("%q is told", name)
		}
	}
}
