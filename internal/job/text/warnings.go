package text

import (
	"fmt"
	"strings"

	"stillpoint/internal/job"
)

// warnings are what was found before the job did anything.
func (p *printer) warnings(all []job.Concern) {
	if len(all) == 0 {
		return
	}
	p.section("Warnings")
	for _, w := range all {
		text := w.Text
		if w.Subject != "" && !strings.HasPrefix(text, w.Subject) {
			text = w.Subject + ": " + text
		}
		fmt.Fprintf(p, "  %s\n    %s\n", Printable(text), explain(w.Code))
	}
}
