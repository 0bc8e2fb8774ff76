package page

import (
	"strings"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/job/text"
	"stillpoint/internal/problem"
)

// A volume is a row of the volumes.
type volume struct {
	Mounts, Paths                  []string
	Provider, Instant, Held, Cache string
	Files, Bytes, Read             string
}

func volumes(r *job.Report) (all []volume) {
	for _, v := range r.Volumes {
		row := volume{
			Mounts: printables(v.Mounts), Provider: text.Printable(v.Provider), Instant: "none, read live", Held: "–", Cache: "–",
			Files: text.Plural(v.Counts.Files, "file", "files"), Bytes: text.Size(v.Counts.Bytes), Read: text.Size(v.Counts.BytesRead),
		}
		if len(v.Mounts) == 0 {
			row.Mounts = []string{text.Printable(v.ID)}
		}
		if len(v.Paths) != 1 || len(v.Mounts) == 0 || v.Paths[0] != v.Mounts[0] {
			row.Paths = printables(v.Paths)
		}
		if !v.Instant.IsZero() {
			row.Instant = v.Instant.Local().Format("2006-01-02 15:04:05.000") + ", " + text.Instant(v.OneInstant, v.Skew)
		}
		if v.Hold > 0 {
			row.Held = text.Length(time.Duration(v.Hold))
		}
		if c := v.Cache; c != nil {
			row.Cache = text.Size(c.Used) + " of " + text.Size(c.Maximum) + ", in " + text.Printable(c.Dir)
		}
		all = append(all, row)
	}
	return all
}

// An application is a row of the applications.
type application struct {
	ID, Version, Mood, How, Code, Title, Rested string
	Why                                         []string
	Attempts                                    int
}

func applications(r *job.Report) (all []application) {
	for _, a := range r.Applications {
		row := application{
			ID: text.Printable(a.ID), Version: text.Printable(strings.TrimSpace(a.Writer + " " + a.Version)), Code: string(a.Code),
			Mood: "good", How: "at rest", Rested: "–", Attempts: a.Attempts,
		}
		row.Title = called(a.Code)
		if a.AtRest {
			row.Rested = text.Length(time.Duration(a.Rested))
			row.Code, row.Title = "", "" // it passed
		} else {
			row.Mood, row.How = "bad", text.Treatment(a)
			if a.Text != "" {
				row.Why = printables(strings.Split(a.Text, "\n"))
			}
		}
		all = append(all, row)
	}
	return all
}

// A group is what has one code, or was left out for one reason.
type group struct {
	Count, Code, Title string
	Named              []named
	More               string // how many are not shown
}

type named struct{ Name, Text string }

// exceptions are the ones of the report, with what the events say of them.
func exceptions(r *job.Report, events []job.Event) (all []group) {
	said := map[problem.Code][]named{}
	for _, e := range events {
		if e.Code != "" && e.Path != "" && len(said[e.Code]) < NamesShown {
			said[e.Code] = append(said[e.Code], named{text.Printable(e.Path), text.Printable(strings.ReplaceAll(e.Text, "\n", "; "))})
		}
	}
	for _, x := range r.Exceptions {
		g := group{Count: text.Thousands(x.Count), Code: string(x.Code), Title: called(x.Code), Named: said[x.Code]}
		if len(g.Named) < len(x.Names) { // some have a name and no path
			g.Named = nil
			for _, n := range x.Names {
				g.Named = append(g.Named, named{Name: text.Printable(n)})
			}
		}
		g.more(x.Count)
		all = append(all, g)
	}
	return all
}

// warnings are what was found before the job did anything.
func warnings(r *job.Report) (all []group) {
	at, count := map[problem.Code]int{}, map[problem.Code]int64{}
	for _, w := range r.Warnings {
		i, there := at[w.Code]
		if !there {
			i = len(all)
			at[w.Code] = i
			all = append(all, group{Code: string(w.Code), Title: called(w.Code)})
		}
		if count[w.Code]++; count[w.Code] <= NamesShown {
			all[i].Named = append(all[i].Named, named{text.Printable(w.Subject), text.Printable(strings.ReplaceAll(w.Text, "\n", "; "))})
		}
	}
	for i := range all {
		n := count[problem.Code(all[i].Code)]
		all[i].Count = text.Thousands(n)
		all[i].more(n)
	}
	return all
}

func leftOut(r *job.Report) (all []group) {
	for _, l := range r.LeftOut {
		g := group{Count: text.Thousands(l.Count), Title: text.Printable(l.Reason)}
		for _, n := range l.Names {
			g.Named = append(g.Named, named{Name: text.Printable(n)})
		}
		g.more(l.Count)
		all = append(all, g)
	}
	return all
}

func (g *group) more(count int64) {
	if n := count - int64(len(g.Named)); n > 0 {
		g.More = text.Thousands(n)
	}
}

func printables(all []string) []string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = text.Printable(s)
	}
	return out
}
