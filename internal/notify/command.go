package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"stillpoint/internal/tool"
)

// A Command is a program that is run. It has the report as JSON on its standard
// input, the page in the file STILLPOINT_REPORT, and what scripts need most in
// further variables.
type Command struct {
	Line []string // the program and its arguments
}

// About is the program. Its arguments may hold secrets: they are never shown.
func (c Command) About() string { return "runs " + c.Line[0] }

// textMost is how long a text in a variable may be. The kernel takes no longer ones
// than 128 KiB (execve(2)), and the report on standard input has all of it.
const textMost = 8 << 10

// Notify runs it.
func (c Command) Notify(ctx context.Context, n *Notice) error {
	stdin, err := n.JSON()
	if err != nil {
		return err
	}
	env := environment(n)
	if n.Page != nil {
		dir, err := os.MkdirTemp("", "stillpoint-report-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		html, err := n.Page()
		if err != nil {
			return err
		}
		file := filepath.Join(dir, "report.html")
		if err := os.WriteFile(file, html, 0o600); err != nil {
			return err
		}
		env = append(env, "STILLPOINT_REPORT="+file)
	}
	_, err = tool.Command{Name: c.Line[0], Args: c.Line[1:], Env: env, Stdin: bytes.NewReader(stdin)}.Run(ctx)
	if failed := (*tool.Error)(nil); errors.As(err, &failed) {
		failed.Command = failed.Command[:1]
	}
	return err
}

// environment is what a program is told in variables.
func environment(n *Notice) (env []string) {
	r := n.Report
	add := func(name, value string) {
		env = append(env, "STILLPOINT_"+name+"="+strings.ReplaceAll(value, "\x00", ""))
	}
	add("JOB", r.Job)
	add("JOB_NAME", n.Name)
	add("KIND", string(r.Kind))
	add("STATUS", string(r.Status))
	add("LEVEL", string(r.Level))
	add("CODE", string(r.Code))
	add("TEXT", shortened(r.Text))
	add("BACKUP", r.Backup)
	add("EXCEPTIONS", strconv.FormatInt(r.ExceptionCount(), 10))
	add("SECONDS", fmt.Sprintf("%.3f", float64(r.Took)/1e9))
	add("HOST", n.Header.Host)
	if n.Test {
		add("TEST", "1")
	}
	return env
}

// shortened is a text that is not too long, cut between two letters.
func shortened(text string) string {
	if len(text) <= textMost {
		return text
	}
	const more = "…"
	cut := textMost - len(more)
	for back := 0; back < utf8.UTFMax && !utf8.RuneStart(text[cut]); back++ {
		cut--
	}
	return text[:cut] + more
}
