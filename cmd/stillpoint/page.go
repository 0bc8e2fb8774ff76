package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"stillpoint/internal/job"
	"stillpoint/internal/job/page"
	"stillpoint/internal/problem"
	"stillpoint/internal/sys/atomicfile"
)

// A pageFlag is --report html[=FILE].
type pageFlag struct {
	wanted bool
	file   string // empty for standard output
}

// addPage adds it.
func addPage(c *cobra.Command, e *env) {
	c.Flags().Var(&e.page, "report", "html: print the report as one HTML page; html=FILE: write that to a file besides")
}

func (p *pageFlag) String() string { return "" }

// Type is what the help shows.
func (p *pageFlag) Type() string { return "html[=FILE]" }

// Set understands a value. That the folder is there is better known before the
// job than after it.
func (p *pageFlag) Set(value string) error {
	form, file, named := strings.Cut(value, "=")
	switch {
	case form != "html":
		return problem.Newf(problem.Usage, form, "is no form of a report; there is html")
	case named && file == "":
		return problem.Newf(problem.Usage, value, "names no file")
	case named:
		if fi, err := os.Stat(filepath.Dir(file)); err != nil || !fi.IsDir() {
			return problem.Newf(problem.Usage, filepath.Dir(file), "is no folder")
		}
	}
	p.wanted, p.file = true, file
	return nil
}

// instead tells that the page takes the place of what else is printed.
func (p *pageFlag) instead() bool { return p.wanted && p.file == "" }

// onePrint refuses to print two forms of a report at once.
func (e *env) onePrint() error {
	if e.json && e.page.instead() {
		return problem.Newf(problem.Usage, "--report html", "and --json both print; name a file: --report html=FILE")
	}
	return nil
}

// printPage writes the page of a job to where it is wanted.
func (e *env) printPage(id string) error {
	html, err := pageOf(id, nil)
	if err != nil {
		return err
	}
	if e.page.instead() {
		_, err := e.stdout.Write(html)
		return err
	}
	if err := atomicfile.Write(e.page.file, 0o600, bytes.NewReader(html)); err != nil { // names of files are nobody's business
		return problem.New(problem.OutputLost, e.page.file, err)
	}
	return nil
}

// pageOf makes the page of a job. The report is there where the log has none yet.
func pageOf(id string, r *job.Report) ([]byte, error) {
	dir, err := job.DefaultDir()
	if err != nil {
		return nil, err
	}
	j, err := job.Excerpt(dir, id, page.Wants())
	if err != nil {
		return nil, err
	}
	if r != nil {
		j.Report = r
	}
	return renderPage(j)
}

func renderPage(j job.Job) ([]byte, error) {
	var b bytes.Buffer
	err := page.Write(&b, j)
	return b.Bytes(), err
}
