package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/sys/atomicfile"
)

// Metrics are a file for the textfile collector of Prometheus' node_exporter, one
// for each kind and name of job. The label "name" is empty for a job that has
// none.
type Metrics struct {
	Dir string // --collector.textfile.directory
}

// About is the folder.
func (m Metrics) About() string { return "writes metrics into " + m.Dir }

// Notify writes the file, whole or not at all. A test leaves no trace.
func (m Metrics) Notify(_ context.Context, n *Notice) error {
	file := m.file(n)
	if n.Test {
		try := filepath.Join(m.Dir, "stillpoint-test.tmp")
		if err := atomicfile.Write(try, 0o644, bytes.NewReader(render(n, 0))); err != nil {
			return err
		}
		return os.Remove(try)
	}
	last, err := lastSuccess(file)
	if err != nil {
		return err
	}
	return atomicfile.Write(file, 0o644, bytes.NewReader(render(n, last)))
}

func (m Metrics) file(n *Notice) string {
	name := string(n.Report.Kind)
	if n.Name != "" {
		name += "-" + regexp.MustCompile(`[^A-Za-z0-9_-]`).ReplaceAllStringFunc(n.Name, func(s string) string { return fmt.Sprintf("%%%x", s) })
	}
	return filepath.Join(m.Dir, "stillpoint-"+name+".prom")
}

var successLine = regexp.MustCompile(`(?m)^stillpoint_job_last_success_timestamp_seconds\{.*\} ([0-9.e+]+)$`)

// lastSuccess is what the file so far says about it.
func lastSuccess(file string) (float64, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	m := successLine.FindSubmatch(b)
	if m == nil {
		return 0, nil
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// statuses are those that a report can have.
var statuses = [...]job.Status{job.Complete, job.CompleteWithExceptions, job.Failed, job.Cancelled}

// render writes the text format of Prometheus. A job that never succeeded has no
// time of its last success.
func render(n *Notice, lastSuccess float64) []byte {
	r := n.Report
	m := metrics{labels: fmt.Sprintf(`kind="%s",name="%s"`, label(string(r.Kind)), label(n.Name))}
	ended := r.Started.Add(time.Duration(r.Took))
	if r.Status == job.Complete || r.Status == job.CompleteWithExceptions {
		lastSuccess = seconds(ended)
	}
	if lastSuccess > 0 {
		m.gauge("last_success_timestamp_seconds", "When a job last ended complete, with or without exceptions.", lastSuccess)
	}
	m.gauge("last_run_timestamp_seconds", "When a job last ended, however it did.", seconds(ended))
	m.gauge("duration_seconds", "How long the last job took.", time.Duration(r.Took).Seconds())
	m.head("status", "How the last job ended: 1 for the status it had.")
	for _, s := range statuses {
		m.line("status", `status="`+string(s)+`"`, one(r.Status == s))
	}
	m.head("code_info", "The code of the last job, empty where it was complete.")
	m.line("code_info", `code="`+label(string(r.Code))+`",level="`+label(string(r.Level))+`"`, 1)
	m.gauge("exceptions", "Exceptions of the last job.", float64(r.ExceptionCount()))
	m.gauge("files", "Regular files in the last backup, or done by the last job.", float64(r.Total.Files))
	m.gauge("size_bytes", "Contents of all files in the last backup.", float64(r.Total.Bytes))
	m.gauge("read_bytes", "Contents that the last job read.", float64(r.Total.BytesRead))
	m.gauge("stored_bytes", "By how much the repository grew in the last job.", float64(r.Total.BytesStored))
	if r.Kind == job.Backup {
		m.gauge("hold_seconds", "The longest that writes to a volume were suspended.", longest(r, false))
		m.gauge("rest_seconds", "The longest that an application rested.", longest(r, true))
	}
	return m.Bytes()
}

func longest(r *job.Report, rest bool) float64 {
	var most job.Millis
	for _, v := range r.Volumes {
		if !rest {
			most = max(most, v.Hold)
		}
	}
	for _, a := range r.Applications {
		if rest {
			most = max(most, a.Rested)
		}
	}
	return time.Duration(most).Seconds()
}

type metrics struct {
	bytes.Buffer
	labels string
}

func (m *metrics) head(name, help string) {
	fmt.Fprintf(m, "# HELP stillpoint_job_%s %s\n# TYPE stillpoint_job_%s gauge\n", name, help, name)
}

func (m *metrics) line(name, more string, value float64) {
	if more != "" {
		more = "," + more
	}
	fmt.Fprintf(m, "stillpoint_job_%s{%s%s} %s\n", name, m.labels, more, strconv.FormatFloat(value, 'f', -1, 64))
}

func (m *metrics) gauge(name, help string, value float64) {
	m.head(name, help)
	m.line(name, "", value)
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// label is a value of a label as the format wants it, which is UTF-8.
func label(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(s, "\ufffd"))
}
