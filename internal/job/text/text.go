// Package text shows events and reports of jobs to people: aligned lines, figures
// that can be read, and nothing that a terminal would obey.
package text

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

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
		fmt.Fprintf(&b, "%-19s  %-9s  ", clock(e.Time), e.Step)
		switch e.Severity {
		case job.Warning:
			b.WriteString("warning: ")
		case job.Error:
			b.WriteString("error: ")
		}
		if subject != "" && !strings.HasPrefix(text, subject) {
			b.WriteString(printable(subject) + ": ")
		}
		b.WriteString(printable(text))
		if e.Code != "" {
			fmt.Fprintf(&b, " [%s]", printable(string(e.Code)))
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Exception writes an exception, in one line.
func Exception(w io.Writer, x job.Exception) error {
	line := strings.TrimPrefix(printable(x.Path)+": ", ": ") + printable(strings.ReplaceAll(x.Reason, "\n", "; "))
	if x.Code != "" {
		line += " [" + printable(string(x.Code)) + "]"
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
	p.leftOut(r.LeftOut)
	if len(r.UnusedExcludes) > 0 {
		p.section("Excludes that fit nothing")
		for _, pattern := range r.UnusedExcludes {
			fmt.Fprintf(&p, "  %s\n", printable(pattern))
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
	p.line("job", printable(r.Job))
	p.line("backup", printable(r.Backup))
	if r.Kind == job.Backup && r.Backup == "" {
		p.line("backup", "none was made")
	}
	p.line("level", string(r.Level))
	switch {
	case r.Level == job.Live && r.Kind == job.Backup:
		p.line("instant", "none: files were read while they could change")
	case len(r.Volumes) > 1:
		p.line("instant", instant(r.OneInstant, r.Skew))
	}
	p.line("started", fmt.Sprintf("%s, took %s", clock(r.Started), length(time.Duration(r.Took))))
	if r.Resumed {
		p.line("resumed", "an interrupted job was picked up again")
		if s := r.Spared; s != nil {
			p.line("", fmt.Sprintf("%s, %s, were not read or sent again", plural(s.Files, "file", "files"), size(s.Bytes)))
		}
	}
	if r.Tries > 1 {
		p.line("tries", thousands(r.Tries)+", see the log")
	}
	if r.Kind == job.Verify && (r.Backups > 0 || r.Status == job.Complete) {
		p.line("verified", plural(r.Backups, "backup", "backups"))
	}
	name := "reason"
	for text := range strings.SplitSeq(r.Text, "\n") {
		p.line(name, printable(text))
		name = ""
	}
	shown := slices.ContainsFunc(r.Exceptions, func(e job.Exceptions) bool { return e.Code == r.Code })
	if r.Code != "" && !shown {
		p.line("explained", explain(r.Code))
	}
}

func statusWords(s job.Status) string {
	switch s {
	case job.CompleteWithExceptions:
		return "complete, with exceptions"
	case "":
		return "without a status"
	}
	return printable(string(s))
}

// applications are one line each.
func (p *printer) applications(all []job.ApplicationReport) {
	if len(all) == 0 {
		return
	}
	p.section("Applications")
	for _, a := range all {
		how := "at rest for " + length(time.Duration(a.Rested))
		switch {
		case a.AtRest:
		case a.Treated == "exclude":
			how = "left out"
		case a.Treated == "crash":
			how = "not at rest: as after a power cut"
		default:
			how = "not at rest"
		}
		if a.Code != "" {
			how += " [" + string(a.Code) + "]"
		}
		fmt.Fprintf(p, "  %s  %s\n", printable(a.ID), printable(how))
		for text := range strings.SplitSeq(a.Text, "\n") {
			if text != "" && !a.AtRest {
				fmt.Fprintf(p, "    %s\n", printable(text))
			}
		}
	}
}

// volume is the section of one volume; only tells that it is the whole job.
func (p *printer) volume(v job.VolumeReport, only bool) {
	at := v.Mounts
	if len(at) == 0 {
		at = []string{v.ID}
	}
	p.section("Volume %s", printable(at[0]))
	p.line("identity", printable(v.ID))
	if len(v.Paths) != 1 || v.Paths[0] != at[0] {
		p.line("paths", printable(strings.Join(v.Paths, ", ")))
	}
	p.line("provider", printable(v.Provider))
	if !v.Instant.IsZero() {
		p.line("instant", fmt.Sprintf("%s, %s", v.Instant.Local().Format("2006-01-02 15:04:05.000"), instant(v.OneInstant, v.Skew)))
		if v.Hold > 0 {
			p.line("held", length(time.Duration(v.Hold)))
		}
	}
	if c := v.Cache; c != nil {
		p.line("cache file", fmt.Sprintf("%s of at most %s used, in %s", size(c.Used), size(c.Maximum), printable(c.Dir)))
	}
	p.counts(job.Backup, v.Counts, time.Duration(v.Took), only)
}

func instant(one bool, skew job.Millis) string {
	if one {
		return "all of one instant"
	}
	return "not of one instant: first and last lie " + length(time.Duration(skew)) + " apart"
}

// counts are the lines that say how much; whole tells that they are those of
// the whole job, of which it is always known what was stored.
func (p *printer) counts(kind job.Kind, c job.Counts, took time.Duration, whole bool) {
	number := plural(c.Files, "file", "files") + ", " + plural(c.Directories, "directory", "directories")
	if c.Others > 0 {
		number += ", " + plural(c.Others, "other", "others")
	}
	p.line(p.contents, number+", "+size(c.Bytes))
	if c.FilesReused > 0 {
		p.line("unchanged", plural(c.FilesReused, "file", "files"))
	}
	switch kind {
	case job.Backup:
		p.line("read", moved(c.BytesRead, took))
		if whole || c.BytesStored > 0 {
			p.line("stored", size(c.BytesStored))
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
	number, name := 0, 0
	for _, e := range all {
		number = max(number, len(thousands(e.Count)))
		name = max(name, len(e.Code))
	}
	for _, e := range all {
		fmt.Fprintf(p, "  %*s  %-*s  %s\n", number, thousands(e.Count), name, e.Code, explain(e.Code))
	}
}

func (p *printer) leftOut(all []job.LeftOut) {
	if len(all) == 0 {
		return
	}
	p.section("Left out")
	number := 0
	for _, l := range all {
		number = max(number, len(thousands(l.Count)))
	}
	for _, l := range all {
		fmt.Fprintf(p, "  %*s  %s\n", number, thousands(l.Count), printable(l.Reason))
		for i, name := range l.Names {
			if i == namesShown {
				break
			}
			fmt.Fprintf(p, "  %*s    %s\n", number, "", printable(name))
		}
		if more := l.Count - int64(min(len(l.Names), namesShown)); more > 0 && len(l.Names) > 0 {
			fmt.Fprintf(p, "  %*s    and %s more, all in the log\n", number, "", thousands(more))
		}
	}
}

// namesShown is how many names of what was left out a report shows to people.
const namesShown = 3

func explain(c problem.Code) string { return "stillpoint explain " + printable(string(c)) }

// printable shows what no terminal may interpret: names of files and texts
// made of them may hold control characters, or no text at all.
func printable(s string) string {
	clean := true
	for _, r := range s {
		clean = clean && unicode.IsPrint(r) && r != utf8.RuneError
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		_, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "no time"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// length shows a time as people need it: two figures of its order.
func length(d time.Duration) string {
	switch {
	case d == 0:
		return "0 ms"
	case d < 999500*time.Microsecond:
		return strconv.FormatFloat(float64(d.Round(time.Microsecond))/float64(time.Millisecond), 'g', 3, 64) + " ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

func moved(bytes int64, took time.Duration) string {
	if took < time.Millisecond || bytes == 0 {
		return size(bytes)
	}
	return fmt.Sprintf("%s, %s/s", size(bytes), size(int64(float64(bytes)/took.Seconds())))
}

func size(bytes int64) string {
	if bytes < 1024 {
		return fmt.Sprintf("%d B", bytes)
	}
	f := float64(bytes)
	for _, unit := range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		f /= 1024
		if f < 999.5 || unit == "EiB" {
			digits := 1
			if f >= 99.95 {
				digits = 0
			}
			return strconv.FormatFloat(f, 'f', digits, 64) + " " + unit
		}
	}
	return ""
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
