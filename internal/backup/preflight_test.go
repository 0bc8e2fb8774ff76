package backup

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/doctor"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

// A backup that finds the last one in the future says so in report and log, and is
// complete all the same.
func TestPreflightWarns(t *testing.T) {
	r := newRig(t)
	rep := r.backup(Options{})
	if len(rep.Warnings) > 0 {
		t.Errorf("a healthy host: %+v", rep.Warnings)
	}
	r.Now = func() time.Time { return time.Now().Add(48 * time.Hour) }
	r.backup(Options{})
	r.Now = nil
	rep = r.backup(Options{})
	if len(rep.Warnings) != 1 || rep.Warnings[0].Code != problem.ClockWrong {
		t.Fatalf("got %+v", rep.Warnings)
	}
	j, err := job.Load(r.JobDir, rep.Job)
	r.must(err)
	if !slices.ContainsFunc(j.Events, func(e job.Event) bool {
		return e.Step == job.StepPlan && e.Severity == job.Warning && e.Code == problem.ClockWrong
	}) {
		t.Errorf("not in the log:\n%s", r.log(rep))
	}
	if len(j.Report.Warnings) != 1 || j.Report.Warnings[0] != rep.Warnings[0] {
		t.Errorf("read again: %+v", j.Report.Warnings)
	}
	if text := r.log(rep); !strings.Contains(text, "\nWarnings\n") || !strings.Contains(text, "stillpoint explain clock-wrong") {
		t.Errorf("not for people:\n%s", text)
	}
}

// Without a place for cache files a backup ends where it named one.
func TestPreflightLeavesCachesToTheAgent(t *testing.T) {
	nowhere := doctor.Finding{Result: doctor.Failure, Code: problem.CacheNowhere}
	b := &backing{run: &run{e: &Engine{}}}
	if b.ends(nowhere) || !b.ends(doctor.Finding{Result: doctor.Failure, Code: problem.PathMissing}) {
		t.Error("the agent is not asked, or another failure is passed over")
	}
	b.e.Cache.Dir = "/srv"
	if !b.ends(nowhere) {
		t.Error("the place that was named is not that important")
	}
}

// A plan is made and forgotten; what would be left out can be asked of the rules.
func TestPlanned(t *testing.T) {
	r := newRig(t)
	src := r.path("src")
	r.must(os.MkdirAll(src+"/keep/tmp", 0o755))
	if err := r.Planned(t.Context(), Options{Paths: []string{src}, Provider: None}, r.repo); err != nil {
		t.Error(err)
	}
	if err := r.Planned(t.Context(), Options{Paths: []string{src}}, ""); !problem.Is(err, problem.NoProvider) {
		t.Errorf("without a provider: %v", err)
	}
	if err := r.Planned(t.Context(), Options{Paths: []string{r.repo}, Provider: None}, r.repo); !problem.Is(err, problem.Usage) {
		t.Errorf("the repository itself: %v", err)
	}
	if err := r.Planned(t.Context(), Options{Paths: []string{src}, Exclude: []string{"[a"}}, ""); !problem.Is(err, problem.Usage) {
		t.Errorf("an odd pattern: %v", err)
	}
	if jobs, err := job.List(r.JobDir); err != nil || len(jobs) > 0 {
		t.Errorf("jobs: %v, %v", jobs, err)
	}
	leaves, err := Excludes(t.Context(), []string{r.dir}, []string{"tmp"}, r.repo)
	r.must(err)
	for path, want := range map[string]bool{src + "/keep": false, src + "/keep/tmp": true, src + "/keep/tmp/x": true, r.repo + "/x": true, r.dir: false} {
		if leaves(path) != want {
			t.Errorf("%s: %t", path, !want)
		}
	}
}
