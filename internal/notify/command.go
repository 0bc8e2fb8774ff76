package notify

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"stillpoint/internal/tool"
)

// A Command is a program that is run. It has the report as JSON on its standard
// input, the page in the file STILLPOINT_REPORT, and what scripts need most in
// further variables.
type Command struct {
	Line []string // the program and its arguments
}

// About is the program.
func (c Command) About() string { return "runs " + strings.Join(c.Line, " ") }

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
	add("TEXT", r.Text)
	add("BACKUP", r.Backup)
	add("EXCEPTIONS", strconv.FormatInt(r.ExceptionCount(), 10))
	add("SECONDS", fmt.Sprintf("%.3f", float64(r.Took)/1e9))
	add("HOST", n.Header.Host)
	if n.Test {
		add("TEST", "1")
	}
	return env
}
