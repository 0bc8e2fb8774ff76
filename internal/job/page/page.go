// Package page shows a job as one HTML page that needs nothing besides itself:
// no script, no font, no picture from elsewhere. It knows how a report and the
// events of a log look on a screen, on a phone and on paper, and makes nothing
// up: what a log does not tell is not there. Names of any bytes are shown as
// text, whatever they pretend to be.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the template and its style
	"encoding/base64"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/yuin/goldmark"

	"stillpoint/internal/job"
	"stillpoint/internal/job/text"
	"stillpoint/internal/problem"
)

//go:embed page.html
var source string

//go:embed style.css
var style string

// NamesShown is how many exceptions of one code the page shows.
const NamesShown = 50

// Wants tells which events of a log the page needs, so that a log of a million
// can be read for it. It is for one log.
func Wants() func(job.Event) bool {
	seen := map[problem.Code]int{}
	return func(e job.Event) bool {
		if e.Step == job.StepRecord {
			return true
		}
		if e.Code == "" || e.Path == "" {
			return false
		}
		seen[e.Code]++
		return seen[e.Code] <= NamesShown
	}
}

// Write writes the page of a job. One without a report, which runs or died, has
// what is known of it.
func Write(w io.Writer, j job.Job) error {
	t, err := template.New("page").Parse(source)
	if err != nil {
		return err
	}
	v, err := newView(&j)
	if err != nil {
		return err
	}
	var b bytes.Buffer // so that a page is there as a whole or not at all
	if err := t.Execute(&b, v); err != nil {
		return err
	}
	_, err = w.Write(append(bytes.TrimSpace(b.Bytes()), '\n'))
	return err
}

// A view is what the template shows.
type view struct {
	Title, Kind, Status, Mood, Where, Hash string
	Job, Version, Command                  string
	CSS                                    template.CSS

	Facts        []fact
	Reason       []string
	Figures      []figure
	Volumes      []volume
	Applications []application
	Exceptions   []group
	Warnings     []group
	LeftOut      []group
	Unused       []string
	Sizes        []*size
	Told         int
	Pages        []codePage
}

// A fact is one line of the head.
type fact struct{ Name, Value, Link string }

// A codePage is one of the catalogue.
type codePage struct {
	Code, Title string
	Open        bool
	Sections    []section
}

type section struct {
	Name string
	Text template.HTML
}

func newView(j *job.Job) (*view, error) {
	r := j.Report
	if r == nil {
		r = &job.Report{Job: j.ID, Kind: j.Kind, Status: j.Status, Code: j.Code, Started: j.Started, Ended: j.Ended}
		if j.Status == job.Died {
			r.Text = "its process ended without closing the log, whose last line is of " + text.Clock(j.Ended)
		}
	}
	sum := sha256.Sum256([]byte(style))
	v := &view{
		Kind: title(string(r.Kind)), Status: words(r.Status), Mood: mood(r.Status), CSS: template.CSS(style), Hash: base64.StdEncoding.EncodeToString(sum[:]),
		Job: j.ID, Version: j.Version, Command: text.Printable(strings.Join(j.Command, " ")),
	}
	v.Where = "of " + text.Printable(strings.Join(append(paths(r), j.Host), " on "))
	if len(paths(r)) == 0 {
		v.Where = "on " + text.Printable(j.Host)
	}
	v.Title = v.Kind + " " + v.Status + ", " + text.Printable(j.Host) + ", " + text.Clock(r.Started)
	v.Facts = facts(r)
	if r.Text != "" {
		v.Reason = printables(strings.Split(r.Text, "\n"))
	}
	v.Figures = figures(r)
	v.Volumes, v.Applications = volumes(r), applications(r)
	v.Exceptions, v.Warnings, v.LeftOut = exceptions(r, j.Events), warnings(r), leftOut(r)
	for _, pattern := range r.UnusedExcludes {
		v.Unused = append(v.Unused, text.Printable(pattern))
	}
	told := j.Directories()
	v.Sizes, v.Told = sizes(told), len(told)
	var err error
	v.Pages, err = pages(r)
	return v, err
}

func title(s string) string {
	if s == "" {
		return "Job"
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func words(s job.Status) string { return strings.ReplaceAll(string(s), "-", " ") }

func mood(s job.Status) string {
	switch s {
	case job.Complete:
		return "good"
	case job.CompleteWithExceptions, job.Running:
		return "fair"
	}
	return "bad"
}

func paths(r *job.Report) []string {
	var all []string
	for _, v := range r.Volumes {
		all = append(all, v.Paths...)
	}
	if len(all) == 0 {
		return nil
	}
	if len(all) > 4 {
		all = append(all[:4:4], "…")
	}
	return []string{strings.Join(all, ", ")}
}

// facts are what there is to say first.
func facts(r *job.Report) (all []fact) {
	add := func(name, value string) {
		if value != "" {
			all = append(all, fact{Name: name, Value: text.Printable(value)})
		}
	}
	if r.Level != "" {
		add("Level", string(r.Level)+": "+text.Meaning(r.Level))
	}
	if len(r.Volumes) > 0 && r.Level != "" && r.Level != job.Live {
		add("Instant", text.Instant(r.OneInstant, r.Skew))
	}
	if r.Code != "" {
		f := fact{Name: "Code", Value: text.Titled(r.Code)}
		if called(r.Code) != "" {
			f.Link = string(r.Code)
		}
		all = append(all, f)
	}
	if n := r.ExceptionCount(); n > 0 {
		add("Exceptions", text.Thousands(n))
	}
	add("Backup", r.Backup)
	if r.Kind == job.Backup && r.Backup == "" {
		add("Backup", "none was made")
	}
	add("Started", text.Clock(r.Started)+", took "+text.Length(time.Duration(r.Took)))
	if r.Resumed {
		add("Resumed", "an interrupted job was picked up again")
	}
	if r.Backups > 0 {
		add("Verified", text.Plural(r.Backups, "backup", "backups"))
	}
	c := r.Total
	if c == (job.Counts{}) {
		return all
	}
	add("Contents", text.Plural(c.Files, "file", "files")+", "+text.Plural(c.Directories, "directory", "directories")+", "+text.Size(c.Bytes))
	if c.FilesReused > 0 {
		add("Unchanged", text.Plural(c.FilesReused, "file", "files"))
	}
	if r.Kind == job.Restore {
		add("Written", text.Size(c.BytesWritten))
		return all
	}
	add("Read", text.Size(c.BytesRead))
	if r.Kind == job.Backup {
		add("Stored", text.Size(c.BytesStored))
	}
	return all
}

// called is the title of the page of a code, if it has one.
func called(code problem.Code) string {
	if p, ok := problem.Find(string(code)); ok && p.Code == code {
		return p.Title
	}
	return ""
}

// pages are those of the codes that the report names, the job's own first.
func pages(r *job.Report) (all []codePage, err error) {
	shown := map[problem.Code]bool{"": true}
	add := func(code problem.Code) {
		p, ok := problem.Find(string(code))
		if shown[code] || !ok || p.Code != code || err != nil {
			return
		}
		shown[code] = true
		c := codePage{Code: string(code), Title: p.Title, Open: code == r.Code}
		for _, s := range p.Sections {
			var b bytes.Buffer
			if err = goldmark.Convert([]byte(s.Text), &b); err != nil {
				return
			}
			c.Sections = append(c.Sections, section{s.Name, template.HTML(b.String())}) // of the catalogue, which is part of the program
		}
		all = append(all, c)
	}
	add(r.Code)
	for _, x := range r.Exceptions {
		add(x.Code)
	}
	for _, a := range r.Applications {
		add(a.Code)
	}
	for _, l := range r.LeftOut {
		add(l.Code)
	}
	for _, w := range r.Warnings {
		add(w.Code)
	}
	return all, err
}
