package page

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/job/text"
)

// The page shows so many captures and so many rows of one; more are told.
const (
	capturesShown = 6
	rowsShown     = 40
	partsSaid     = 12 // of one row
)

// A figure is a timeline, drawn to scale.
type figure struct {
	Title, Note string
	Ticks       []tick
	Rows        []row
	More        int // rows that are not shown
}

type tick struct{ X, Label, Anchor string }

type row struct {
	Name, Of, Took string
	Parts          []bar // the same as Took, each with its step
	Bars           []bar
	Instants       []bar

	who   string // what its spans have in common
	spans []job.Span
	marks []mark
}

type bar struct{ Step, X, W, Title string }

// A mark is the instant of a volume.
type mark struct {
	at    job.Millis
	title string
}

// figures are the timelines of a job: as a whole, of each capture, and of the
// time in it in which anybody had to wait.
func figures(r *job.Report) (all []figure) {
	if rows := whole(r.Timeline); len(rows) > 0 {
		_, to := extentOf(rows)
		all = append(all, drawn("The job", "", rows, 0, max(to, r.Took)))
	}
	captures := 0
	for _, s := range r.Timeline {
		captures = max(captures, s.Capture)
	}
	for n := 1; n <= min(captures, capturesShown); n++ {
		rows := captured(r, n)
		if len(rows) == 0 {
			continue
		}
		name := "The capture"
		if captures > 1 {
			name = fmt.Sprintf("Capture %d of %d", n, captures)
		}
		note := ""
		if n == capturesShown && captures > n {
			note = fmt.Sprintf("%d more captures are not shown.", captures-n)
		}
		from, to := extentOf(rows)
		all = append(all, drawn(name, note, rows, from, to))
		if waited := waiting(rows); len(waited) > 0 {
			from, to := extentOf(waited)
			all = append(all, drawn(name+": while applications rested or writes were suspended", "", waited, from, to))
		}
	}
	return all
}

// whole has a row for each step of the job.
func whole(spans []job.Span) (rows []row) {
	for _, s := range spans {
		if s.Capture == 0 {
			rows = added(rows, s.Step, s.Step, "", s)
		}
	}
	return rows
}

// captured has a row for each application and each volume of one capture.
func captured(r *job.Report, n int) (rows []row) {
	for _, s := range r.Timeline {
		switch {
		case s.Capture != n:
		case s.Application != "":
			rows = added(rows, "application "+s.Application, s.Application, "", s)
		case s.Provider == "":
			rows = added(rows, "all", "all", "", s)
		default:
			for _, id := range s.Volumes {
				rows = added(rows, "volume "+id, mounted(r, id), "by "+s.Provider, s)
			}
		}
	}
	for i := range rows {
		id, ok := strings.CutPrefix(rows[i].who, "volume ")
		at := slices.IndexFunc(r.Volumes, func(v job.VolumeReport) bool { return v.ID == id })
		if !ok || at < 0 || r.Volumes[at].Instant.IsZero() {
			continue
		}
		// An instant is known by the clock of the host, which may have been set
		// meanwhile: then it is not shown.
		v := r.Volumes[at]
		m := mark{at: job.Millis(v.Instant.Sub(r.Started)), title: "the instant, " + v.Instant.Local().Format("15:04:05.000")}
		if from, to := extent(rows[i].spans); m.at >= from && m.at <= to {
			rows[i].marks = []mark{m}
		}
	}
	return rows
}

// mounted is where a volume is mounted.
func mounted(r *job.Report, id string) string {
	for _, v := range r.Volumes {
		if v.ID == id && len(v.Mounts) > 0 {
			return v.Mounts[0]
		}
	}
	return id
}

func added(rows []row, who, name, of string, s job.Span) []row {
	i := slices.IndexFunc(rows, func(r row) bool { return r.who == who })
	if i < 0 {
		i = len(rows)
		rows = append(rows, row{who: who, Name: text.Printable(name), Of: text.Printable(of)})
	}
	rows[i].spans = append(rows[i].spans, s)
	return rows
}

// waiting are the rows of a capture with only those steps in which somebody
// waits, where the rest is so long that these can hardly be seen.
func waiting(rows []row) (out []row) {
	for _, r := range rows {
		r.spans = slices.DeleteFunc(slices.Clone(r.spans), func(s job.Span) bool {
			return !slices.Contains([]string{"freeze", "rest", "thaw", "hold", "commit", "resume"}, s.Step)
		})
		if len(r.spans) > 0 {
			out = append(out, r)
		}
	}
	from, to := extentOf(out)
	first, last := extentOf(rows)
	if last-first < 3*(to-from) {
		return nil
	}
	return out
}

func extent(spans []job.Span) (from, to job.Millis) {
	from = math.MaxInt64
	for _, s := range spans {
		from, to = min(from, s.At), max(to, s.End())
	}
	return from, to
}

func extentOf(rows []row) (from, to job.Millis) {
	var all []job.Span
	for _, r := range rows {
		all = append(all, r.spans...)
	}
	return extent(all)
}

// drawn lays rows out between two times.
func drawn(name, note string, rows []row, from, to job.Millis) figure {
	f := figure{Title: name, Note: note, Ticks: ticks(to - from)}
	if len(rows) > rowsShown {
		f.More, rows = len(rows)-rowsShown, rows[:rowsShown]
	}
	x := func(at job.Millis) string { return percent(float64(at-from) / float64(max(to-from, 1))) }
	for _, r := range rows {
		for _, s := range r.spans {
			said := s.Step + " " + text.Length(time.Duration(s.Took))
			if s.Failed {
				said += ", failed"
			}
			r.Bars = append(r.Bars, bar{Step: s.Step, X: x(s.At), W: percent(float64(s.Took) / float64(max(to-from, 1))), Title: said})
		}
		for _, m := range r.marks {
			if m.at >= from && m.at <= to {
				r.Instants = append(r.Instants, bar{X: x(m.at), Title: m.title})
			}
		}
		r.say()
		f.Rows = append(f.Rows, r)
	}
	return f
}

// say puts into words what is drawn.
func (r *row) say() {
	r.Parts = slices.Concat(r.Bars, r.Instants)
	if n := len(r.Parts) - partsSaid; n > 0 {
		r.Parts = append(r.Parts[:partsSaid:partsSaid], bar{Title: fmt.Sprintf("and %d more", n)})
	}
	var all []string
	for _, p := range r.Parts {
		all = append(all, p.Title)
	}
	r.Took = strings.Join(all, ", ")
}

// ticks are round times, three to six of them, from 0 on.
func ticks(length job.Millis) (all []tick) {
	if length <= 0 {
		return nil
	}
	step := math.Pow(10, math.Floor(math.Log10(float64(length))))
	for _, factor := range []float64{0.2, 0.5, 1, 2} {
		if n := float64(length) / (step * factor); n <= 5 {
			step *= factor
			break
		}
	}
	for at := 0.0; at <= float64(length); at += step {
		t := tick{X: percent(at / float64(length)), Label: text.Length(time.Duration(at)), Anchor: "middle"}
		switch {
		case at == 0:
			t.Anchor = "start"
		case at > 0.94*float64(length):
			t.Anchor = "end"
		}
		all = append(all, t)
	}
	return all
}

// percent is a share as SVG wants it.
func percent(share float64) string { return strconv.FormatFloat(100*share, 'f', 3, 64) }
