// Package text shows events and reports of jobs to people: aligned lines, figures
// that can be read, and nothing that a terminal would obey.
package text

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

// Event writes an event, one line for each line of its text, with the time as
// clocks on this host show it.
func Event(w io.Writer, e job.Event) error {
	subject := e.Path
	if subject == "" {
		subject = e.Volume
	}
	var b strings.Builder
	for text := range strings.SplitSeq(e.Text, "\n") {
		fmt.Fprintf(&b, "%-19s  %-9s  ", Clock(e.Time), e.Step)
		switch e.Severity {
		case job.Warning:
			b.WriteString("warning: ")
		case job.Error:
			b.WriteString("error: ")
		}
		if subject != "" && !strings.HasPrefix(text, subject) {
			b.WriteString(Printable(subject) + ": ")
		}
		b.WriteString(Printable(text))
		if e.Code != "" {
			fmt.Fprintf(&b, " [%s]", Printable(string(e.Code)))
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Exception writes an exception, in one line.
func Exception(w io.Writer, x job.Exception) error {
	line := strings.TrimPrefix(Printable(x.Path)+": ", ": ") + Printable(strings.ReplaceAll(x.Reason, "\n", "; "))
	if x.Code != "" {
		line += " [" + Printable(string(x.Code)) + "]"
	}
	_, err := io.WriteString(w, line+"\n")
	return err
}

// Report writes a report.
func Report(w io.Writer, r job.Report) error {
	p := printer{contents: "contents"}
	made := r.Kind == job.Verify || r.Backup != "" && r.Kind == job.Backup // these went on to the end
	if r.Status == job.Cancelled || r.Status == job.Failed && !made {
		p.contents = "until then"
	}
	p.head(r)
	for _, v := range r.Volumes {
		p.volume(v, len(r.Volumes) == 1)
	}
	p.applications(r.Applications)
	if len(r.Volumes) != 1 && r.Total != (job.Counts{}) {
		p.section("Total")
		p.counts(r.Kind, r.Total, time.Duration(r.Took), true)
	}
	p.exceptions(r.Exceptions)
	p.warnings(r.Warnings)
	p.leftOut(r.LeftOut)
	if len(r.UnusedExcludes) > 0 {
		p.section("Excludes that fit nothing")
		for _, pattern := range r.UnusedExcludes {
			fmt.Fprintf(&p, "  %s\n", Printable(pattern))
		}
	}
	_, err := io.WriteString(w, p.String())
	return err
}

// A printer lays out a report: sections of aligned lines.
type printer struct {
	strings.Builder
	contents string // what the line with the number of files is called
}

func (p *printer) section(format string, args ...any) {
	fmt.Fprintf(p, "\n"+format+"\n", args...)
}

// line is one line of a section; an empty value leaves it out.
func (p *printer) line(name, value string) {
	if value != "" {
		fmt.Fprintf(p, "  %-10s  %s\n", name, value)
	}
}

func (p *printer) head(r job.Report) {
	what := string(r.Kind)
	if what == "" {
		what = "job"
	}
	fmt.Fprintf(p, "%s%s %s\n", strings.ToUpper(what[:1]), what[1:], statusWords(r.Status))
	p.line("job", Printable(r.Job))
	p.line("backup", Printable(r.Backup))
	if r.Kind == job.Backup && r.Backup == "" {
		p.line("backup", "none was made")
	}
	p.line("level", withMeaning(r.Level))
	switch {
	case r.Level == job.Live && r.Kind == job.Backup:
		p.line("instant", "none: files were read while they could change")
	case len(r.Volumes) > 1, len(r.Volumes) == 1 && r.Level != "":
		p.line("instant", Instant(r.OneInstant, r.Skew))
	}
	p.line("started", fmt.Sprintf("%s, took %s", Clock(r.Started), Length(time.Duration(r.Took))))
	if r.Resumed {
		p.line("resumed", "an interrupted job was picked up again")
		if s := r.Spared; s != nil {
			p.line("", fmt.Sprintf("%s, %s, were not read or sent again", Plural(s.Files, "file", "files"), Size(s.Bytes)))
		}
	}
	if r.Tries > 1 {
		p.line("tries", Thousands(r.Tries)+", see the log")
	}
	if r.Kind == job.Verify && (r.Backups > 0 || r.Status == job.Complete) {
		p.line("verified", Plural(r.Backups, "backup", "backups"))
	}
	name := "reason"
	for text := range strings.SplitSeq(r.Text, "\n") {
		p.line(name, Printable(text))
		name = ""
	}
	if n := r.ExceptionCount(); n > 0 {
		p.line("exceptions", Thousands(n)+", by reason below")
	}
	shown := slices.ContainsFunc(r.Exceptions, func(e job.Exceptions) bool { return e.Code == r.Code })
	if r.Code != "" && !shown {
		p.line("code", Titled(r.Code))
		p.line("explained", explain(r.Code))
	}
}

// Meaning says in a few words what a level promises; doc/guarantee.md says it
// exactly.
func Meaning(l job.Level) string {
	switch l {
	case job.Application:
		return "the applications that were found were at rest, and can go on from it"
	case job.FileSystem:
		return "as if all programs had been ended at that instant"
	case job.Crash:
		return "as after a power cut at that instant"
	case job.Live:
		return "of no instant, read while everything went on"
	}
	return ""
}

func withMeaning(l job.Level) string {
	if m := Meaning(l); m != "" {
		return string(l) + ": " + m
	}
	return Printable(string(l))
}

// Titled is a code with what its page is called.
func Titled(c problem.Code) string {
	if page, ok := problem.Find(string(c)); ok && page.Code == c {
		return string(c) + ": " + page.Title
	}
	return Printable(string(c))
}

func statusWords(s job.Status) string {
	switch s {
	case job.CompleteWithExceptions:
		return "complete, with exceptions"
	case "":
		return "without a status"
	}
	return Printable(string(s))
}

// applications are one line each.
func (p *printer) applications(all []job.ApplicationReport) {
	if len(all) == 0 {
		return
	}
	p.section("Applications")
	for _, a := range all {
		how := "at rest for " + Length(time.Duration(a.Rested))
		if !a.AtRest {
			how = Treatment(a)
		}
		if a.Code != "" {
			how += " [" + string(a.Code) + "]"
		}
		fmt.Fprintf(p, "  %s  %s\n", Printable(a.ID), Printable(how))
		for text := range strings.SplitSeq(a.Text, "\n") {
			if text != "" && !a.AtRest {
				fmt.Fprintf(p, "    %s\n", Printable(text))
			}
		}
	}
}

// Treatment says how the files of an application are that was not at rest.
func Treatment(a job.ApplicationReport) string {
	switch a.Treated {
	case "exclude":
		return "left out"
	case "crash":
		return "not at rest: as after a power cut"
	}
	return "not at rest"
}

// volume is the section of one volume; only tells that it is the whole job.
func (p *printer) volume(v job.VolumeReport, only bool) {
	at := v.Mounts
	if len(at) == 0 {
		at = []string{v.ID}
	}
	p.section("Volume %s", Printable(at[0]))
	p.line("identity", Printable(v.ID))
	if len(v.Paths) != 1 || v.Paths[0] != at[0] {
		p.line("paths", Printable(strings.Join(v.Paths, ", ")))
	}
	p.line("provider", Printable(v.Provider))
	if !v.Instant.IsZero() {
		p.line("instant", fmt.Sprintf("%s, %s", v.Instant.Local().Format("2006-01-02 15:04:05.000"), Instant(v.OneInstant, v.Skew)))
		if v.Hold > 0 {
			p.line("held", Length(time.Duration(v.Hold)))
		}
	}
	if c := v.Cache; c != nil {
		p.line("cache file", fmt.Sprintf("%s of at most %s used, in %s", Size(c.Used), Size(c.Maximum), Printable(c.Dir)))
	}
	p.counts(job.Backup, v.Counts, time.Duration(v.Took), only)
}

// Instant says whether something is of one instant, or by how much it missed.
func Instant(one bool, skew job.Millis) string {
	if one {
		return "all of one instant"
	}
	return "not of one instant: first and last lie " + Length(time.Duration(skew)) + " apart"
}

// counts are the lines that say how much; whole tells that they are those of
// the whole job, of which it is always known what was stored.
func (p *printer) counts(kind job.Kind, c job.Counts, took time.Duration, whole bool) {
	number := Plural(c.Files, "file", "files") + ", " + Plural(c.Directories, "directory", "directories")
	if c.Others > 0 {
		number += ", " + Plural(c.Others, "other", "others")
	}
	p.line(p.contents, number+", "+Size(c.Bytes))
	if c.FilesReused > 0 {
		p.line("unchanged", Plural(c.FilesReused, "file", "files"))
	}
	switch kind {
	case job.Backup:
		p.line("read", moved(c.BytesRead, took))
		if whole || c.BytesStored > 0 {
			p.line("stored", Size(c.BytesStored))
		}
	case job.Restore:
		p.line("written", moved(c.BytesWritten, took))
	default:
		p.line("read", moved(c.BytesRead, took))
	}
}

func (p *printer) exceptions(all []job.Exceptions) {
	if len(all) == 0 {
		return
	}
	p.section("Exceptions")
	number := 0
	for _, e := range all {
		number = max(number, len(Thousands(e.Count)))
	}
	for _, e := range all {
		fmt.Fprintf(p, "  %*s  %s\n", number, Thousands(e.Count), Titled(e.Code))
		p.names(number, e.Names, e.Count)
		fmt.Fprintf(p, "  %*s  %s\n", number, "", explain(e.Code))
	}
}

func (p *printer) leftOut(all []job.LeftOut) {
	if len(all) == 0 {
		return
	}
	p.section("Left out")
	number := 0
	for _, l := range all {
		number = max(number, len(Thousands(l.Count)))
	}
	for _, l := range all {
		fmt.Fprintf(p, "  %*s  %s\n", number, Thousands(l.Count), Printable(l.Reason))
		p.names(number, l.Names, l.Count)
	}
}

// names are the first of so many, below their number.
func (p *printer) names(number int, names []string, count int64) {
	for i, name := range names {
		if i == namesShown {
			break
		}
		fmt.Fprintf(p, "  %*s    %s\n", number, "", Printable(name))
	}
	if more := count - int64(min(len(names), namesShown)); more > 0 && len(names) > 0 {
		fmt.Fprintf(p, "  %*s    and %s more, all in the log\n", number, "", Thousands(more))
	}
}

// namesShown is how many names of one kind a report shows to people.
const namesShown = 3

func explain(c problem.Code) string { return "stillpoint explain " + Printable(string(c)) }
