//go:build bench

package cow_test

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
)

// A measure is a line of the table.
type measure struct {
	name string
	unit string
	goal goal
}

// A goal is what is to be reached; the zero value is none.
type goal struct {
	least, most float64
	ratio       bool // of the ratio, and not of the value with a snapshot
}

// The two sides that are compared.
const (
	without = iota
	with
	sides
)

// A side is measured once in each round.
type side [sides][]float64

type row struct {
	measure
	of map[string]*side // by file system
}

// results are what was measured, in the order of the table.
type results struct{ rows []*row }

// add adds what was measured in one round.
func (rs *results) add(fs string, m measure, which int, value float64) {
	i := slices.IndexFunc(rs.rows, func(o *row) bool { return o.measure == m })
	if i < 0 {
		i = len(rs.rows)
		rs.rows = append(rs.rows, &row{m, map[string]*side{}})
	}
	s := rs.rows[i].of[fs]
	if s == nil {
		s = &side{}
		rs.rows[i].of[fs] = s
	}
	s[which] = append(s[which], value)
}

// note adds what was measured, and says it.
func (r *rig) note(m measure, which int, value float64) {
	r.add(r.fs, m, which, value)
	fmt.Fprintf(os.Stderr, "%s round %d: %s %s: %s %s\n", r.fs, r.round+1, m.name, [sides]string{"without", "with"}[which], number(value), m.unit)
}

// print prints the table.
func (rs *results) print(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| |")
	for _, fs := range fileSystems {
		fmt.Fprintf(&b, " %s without | with | ratio |", fs)
	}
	b.WriteString(" to reach |\n|---|" + strings.Repeat("---:|", 3*len(fileSystems)) + "---|\n")
	for _, m := range rs.rows {
		fmt.Fprintf(&b, "| %s, %s |", m.name, m.unit)
		var reached []string
		for _, fs := range fileSystems {
			s := m.of[fs]
			if s == nil {
				s = &side{}
			}
			fmt.Fprintf(&b, " %s | %s | %s |", number(median(s[without])), number(median(s[with])), number(s.ratio()))
			if len(s[with]) > 0 && m.goal != (goal{}) {
				reached = append(reached, fs+": "+m.goal.met(s))
			}
		}
		fmt.Fprintf(&b, " %s |\n", strings.Join(append(m.goal.text(), reached...), " "))
	}
	_, err := io.WriteString(w, "\n"+b.String()+"\n")
	return err
}

// ratio is of the medians.
func (s *side) ratio() float64 { return median(s[with]) / median(s[without]) }

func (g goal) text() []string {
	switch {
	case g.least > 0:
		return []string{"≥ " + number(g.least)}
	case g.most > 0:
		return []string{"≤ " + number(g.most)}
	}
	return nil
}

func (g goal) met(s *side) string {
	v := median(s[with])
	if g.ratio {
		v = s.ratio()
	}
	if v >= g.least && (g.most == 0 || v <= g.most) {
		return "yes"
	}
	return "no"
}

// median is not a number where there are none.
func median(vs []float64) float64 {
	if len(vs) == 0 {
		return math.NaN()
	}
	vs = slices.Sorted(slices.Values(vs))
	return (vs[(len(vs)-1)/2] + vs[len(vs)/2]) / 2
}

// number has three digits, or all before the point.
func number(v float64) string {
	switch abs := math.Abs(v); {
	case math.IsNaN(v):
		return ""
	case abs >= 100:
		return fmt.Sprintf("%.0f", v)
	case abs >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
