package notify

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

// families reads a file as Prometheus does.
func families(t *testing.T, file string) map[string]*dto.MetricFamily {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	var p expfmt.TextParser
	f, err := p.TextToMetricFamilies(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%v:\n%s", err, b)
	}
	faults, err := promlint.New(bytes.NewReader(b)).Lint()
	must(t, err)
	for _, fault := range faults {
		t.Errorf("%s: %s", fault.Metric, fault.Text)
	}
	return f
}

func value(f map[string]*dto.MetricFamily, name string, labels ...string) string {
	family := f["stillpoint_job_"+name]
	if family == nil {
		return "none"
	}
	for _, m := range family.Metric {
		fit := 0
		for _, l := range m.Label {
			for _, want := range labels {
				if l.GetName()+"="+l.GetValue() == want {
					fit++
				}
			}
		}
		if fit == len(labels) {
			return fmt.Sprint(m.Gauge.GetValue())
		}
	}
	return "no such labels"
}

func TestMetrics(t *testing.T) {
	m := Metrics{Dir: t.TempDir()}
	n := notice(job.Failed, problem.CacheFull)
	n.Name = `night"ly/ä`
	tell := func() map[string]*dto.MetricFamily {
		must(t, m.Notify(t.Context(), n))
		files, err := filepath.Glob(m.Dir + "/*")
		must(t, err)
		if len(files) != 1 {
			t.Fatalf("files %q", files)
		}
		return families(t, files[0])
	}
	f := tell()
	if got := value(f, "last_success_timestamp_seconds"); got != "none" {
		t.Errorf("succeeded at %s, and never did", got)
	}
	for name, want := range map[string]string{
		"duration_seconds": "192", "hold_seconds": "0.038", "rest_seconds": "0.061", "exceptions": "0", "files": "100012",
		"size_bytes": fmt.Sprint(float64(4 << 30)), "stored_bytes": fmt.Sprint(float64(1 << 20)),
	} {
		if got := value(f, name, "kind=backup", `name=night"ly/ä`); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if value(f, "status", "status=failed") != "1" || value(f, "status", "status=complete") != "0" || value(f, "code_info", "code=cache-full", "level=filesystem") != "1" {
		t.Errorf("status: %v", f["stillpoint_job_status"])
	}

	// The last success stays known through a failure, and the file is replaced whole.
	n.Report.Status, n.Report.Code = job.Complete, ""
	succeeded := value(tell(), "last_success_timestamp_seconds")
	if want := fmt.Sprint(float64(twoOClock.Add(192 * time.Second).Unix())); succeeded != want {
		t.Errorf("succeeded at %s, want %s", succeeded, want)
	}
	n.Report.Status, n.Report.Code, n.Report.Started = job.Cancelled, problem.Cancelled, twoOClock.Add(time.Hour)
	f = tell()
	if got := value(f, "last_success_timestamp_seconds"); got != succeeded {
		t.Errorf("after a failure succeeded at %s, was %s", got, succeeded)
	}
	if got := value(f, "last_run_timestamp_seconds"); got == succeeded {
		t.Error("the last run is the last success")
	}

	// A test leaves all as it was, and fails where there is no folder.
	n.Test, n.Report.Status = true, job.Complete
	if got := value(tell(), "last_success_timestamp_seconds"); got != succeeded {
		t.Error("a test is told as a run")
	}
	if err := (Metrics{Dir: m.Dir + "/none"}).Notify(t.Context(), n); err == nil {
		t.Error("a folder that is not there is taken")
	}
}
