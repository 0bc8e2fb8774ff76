package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A quantity is one line of the table for each task.
type quantity struct {
	name  string
	value func(m *measure) float64
	show  func(v float64) string
}

func seconds(v float64) string { return fmt.Sprintf("%.2f s", v) }
func amount(v float64) string  { return formatSize(int64(v)) }

var quantities = [...]quantity{
	{"time", func(m *measure) float64 { return m.Wall.Seconds() }, seconds},
	{"time until on disk", func(m *measure) float64 { return m.Synced.Seconds() }, seconds},
	{"processor time", func(m *measure) float64 { return m.CPU.Seconds() }, seconds},
	{"peak memory", func(m *measure) float64 { return float64(m.Memory) }, amount},
	{"size of repository", func(m *measure) float64 { return float64(m.Stored) }, amount},
}

// report prints what was measured, on what, and how to repeat it.
func (s *stage) report(ctx context.Context, w io.Writer, o *options, ps []*program, ms []measure) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Medians of %d runs; %d processors, %s. %d files of together %s; one file of %s; seed %d.\n\n",
		o.runs, runtime.NumCPU(), kernel(), o.files, formatSize(s.fileBytes), formatSize(o.large), o.seed)
	table(&b, o.only, ms)
	fmt.Fprintln(&b)
	for _, p := range ps {
		fmt.Fprintf(&b, "- %s\n", p.describe(ctx))
	}
	fmt.Fprintf(&b, "\nRepeat it with `go run ./bench -files %d -large %d -runs %d -seed %d -only %s -provider %s -cold=%t` (%s).\n",
		o.files, o.large, o.runs, o.seed, strings.Join(o.only, ","), o.provider, o.cold, time.Now().UTC().Format("2006-01-02"))
	_, err := io.WriteString(w, b.String())
	return err
}

// table writes a Markdown table; its last column compares stillpoint with the
// best of the others: below 1 it is better.
func table(b *strings.Builder, names []string, ms []measure) {
	fmt.Fprintf(b, "| task | | %s | to the best other |\n|---|---|%s---:|\n", strings.Join(names, " | "), strings.Repeat("---:|", len(names)))
	for _, task := range []string{firstFiles, secondFiles, restoreFiles, firstLarge, restoreLarge} {
		title := task
		for _, q := range quantities {
			line, ok := row(q, task, names, ms)
			if ok {
				fmt.Fprintf(b, "| %s | %s | %s |\n", title, q.name, line)
				title = ""
			}
		}
	}
}

func row(q quantity, task string, names []string, ms []measure) (string, bool) {
	var cells []string
	var ours, best float64
	for _, name := range names {
		v := median(q, task, name, ms)
		cells = append(cells, q.show(v))
		switch {
		case name == "stillpoint":
			ours = v
		case strings.HasPrefix(name, "stillpoint"):
		case best == 0 || v < best:
			best = v
		}
		if v == 0 {
			return "", false
		}
	}
	ratio := "–"
	if ours != 0 && best != 0 {
		ratio = fmt.Sprintf("%.2f", ours/best)
	}
	return strings.Join(append(cells, ratio), " | "), true
}

func median(q quantity, task, name string, ms []measure) float64 {
	var vs []float64
	for i := range ms {
		if ms[i].Task == task && ms[i].Program == name {
			vs = append(vs, q.value(&ms[i]))
		}
	}
	if len(vs) == 0 {
		return 0
	}
	slices.SortFunc(vs, cmp.Compare)
	return (vs[(len(vs)-1)/2] + vs[len(vs)/2]) / 2
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return "Linux " + strings.TrimSpace(string(b))
}

func writeJSON(path string, ms []measure) error {
	b, err := json.MarshalIndent(ms, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
