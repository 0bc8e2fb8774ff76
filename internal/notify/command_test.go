package notify

import (
	"strings"
	"testing"
	"unicode/utf8"

	"stillpoint/internal/job"
)

// Arguments may hold secrets: neither success nor failure shows them.
func TestCommandHidesArguments(t *testing.T) {
	c := Command{Line: []string{"/bin/sh", "-c", "exit 7 # hidden"}}
	err := c.Notify(t.Context(), notice(job.Failed, ""))
	if err == nil || strings.Contains(err.Error(), "hidden") || !strings.Contains(err.Error(), "/bin/sh: exit status 7") {
		t.Errorf("failed: %v", err)
	}
	if about := c.About(); about != "runs /bin/sh" {
		t.Errorf("about %q", about)
	}
}

// A text that is too long for a variable keeps no program from being started.
func TestCommandShortensText(t *testing.T) {
	n := notice(job.Failed, "")
	n.Report.Text = "x" + strings.Repeat("ä", 100<<10)
	must(t, Command{Line: []string{"/bin/sh", "-c", `test ${#STILLPOINT_TEXT} -gt 4000`}}.Notify(t.Context(), n))
	if s := shortened(n.Report.Text); len(s) > textMost || !utf8.ValidString(s) || !strings.HasSuffix(s, "ä…") {
		t.Errorf("%d bytes, ends with %q", len(s), s[len(s)-10:])
	}
}
