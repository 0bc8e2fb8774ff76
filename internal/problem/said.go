package problem

import (
	"fmt"
	"strings"
)

// Said is what people read of a code of another system, before the page of its
// counterpart.
func (a Answer) Said() string {
	f := a.Foreign
	var b strings.Builder
	line := func(format string, args ...any) {
		b.WriteString(fill(fmt.Sprintf(format, args...), "") + "\n\n")
	}
	line("# %s", strings.Join(f.Codes, ", "))
	if a.Rule != "" {
		line("A guess: %s.", a.Rule)
	}
	line("A code of %s: %s.%s", f.System, f.Meaning, f.Source.doubt())
	if f.Remedy != "" {
		line("What was done about it there: %s.", f.Remedy)
	}
	if a.Page != nil {
		line("Its counterpart here is %s, %s: %s.", a.Page.Code, a.Page.Title, f.Why)
	} else {
		line("There is no counterpart here: %s.", f.Why)
	}
	if len(f.See) > 0 {
		var all []string
		for _, c := range f.See {
			all = append(all, string(c))
		}
		line("Near it: %s.", strings.Join(all, ", "))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// doubt says how far a meaning is to be trusted.
func (s Source) doubt() string {
	switch s {
	case Reported:
		return " This is hearsay: no document of its maker was found that says so."
	case Named:
		return " That is what its name says; its documentation gives no more."
	}
	return ""
}
