package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"stillpoint/internal/config"
	"stillpoint/internal/problem"
)

func newConfigCheck(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "find all mistakes of the configuration at once",
		Long: `Finds all mistakes of the configuration at once, each with its line and column, and
what is allowed there. Where the file itself is right, each job is looked at on this
host: whether its paths are there and can be taken, its files can be read, its
repository can be opened. Nothing is changed.`,
		Example: `  stillpoint config check
  STILLPOINT_CONFIG=new.yaml stillpoint config check --json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runConfigCheck(c.Context(), e) },
	}
	jsonFlag(c, e)
	return c
}

// mistake is one finding of `config check`.
type mistake struct {
	Line   int          `json:"line,omitempty"`
	Column int          `json:"column,omitempty"`
	Job    string       `json:"job,omitempty"`
	Key    string       `json:"key,omitempty"`
	Code   problem.Code `json:"code"`
	Text   string       `json:"text"`
}

// checked is what `config check --json` prints.
type checked struct {
	File     string    `json:"file"`
	Jobs     []string  `json:"jobs"`
	Mistakes []mistake `json:"mistakes"`
}

func runConfigCheck(ctx context.Context, e *env) error {
	r := checked{File: cmp.Or(e.getenv("STILLPOINT_CONFIG"), config.Path), Jobs: []string{}, Mistakes: []mistake{}}
	c, err := configuration(e)
	switch found := config.Mistakes(err); {
	case err != nil && len(found) == 0:
		return err
	case err != nil:
		for _, m := range found {
			r.Mistakes = append(r.Mistakes, mistake{m.Line, m.Column, "", m.Key, problem.ConfigWrong, m.Text})
		}
	default:
		for _, m := range c.Wrong() {
			r.Mistakes = append(r.Mistakes, mistake{m.Line, m.Column, "", m.Key, problem.ConfigWrong, m.Text})
		}
		r.Jobs = append(r.Jobs, c.JobNames()...)
		if _, err := applications(e); err != nil {
			for text := range strings.SplitSeq(problem.Text(err), "\n") {
				r.Mistakes = append(r.Mistakes, mistake{Key: "writers", Code: problem.CodeOf(err), Text: text})
			}
		}
		for _, name := range r.Jobs {
			if slices.ContainsFunc(c.Wrong(), func(m *config.Mistake) bool { return m.Job == name }) {
				continue // there is nothing sure to look at
			}
			j, err := e.checkJob(ctx, c, name)
			if err != nil {
				return err
			}
			r.Mistakes = append(r.Mistakes, j.found...)
		}
	}
	if err := e.printChecked(r); err != nil || len(r.Mistakes) == 0 {
		return err
	}
	return reported{problem.New(r.Mistakes[0].Code, r.File, nil)}
}

func (e *env) printChecked(r checked) error {
	if e.json {
		return e.print(r)
	}
	for _, m := range r.Mistakes {
		at := quote(r.File)
		if m.Line > 0 {
			at += fmt.Sprintf(":%d:%d", m.Line, m.Column)
		}
		if m.Job != "" {
			at += ": jobs." + m.Job
		}
		if m.Key != "" {
			at += ": " + m.Key
		}
		fmt.Fprintf(e.stdout, "%s: %s [%s]\n", at, quote(m.Text), m.Code)
	}
	switch n := len(r.Mistakes); {
	case n == 1:
		_, err := fmt.Fprintln(e.stdout, "1 mistake")
		return err
	case n > 1:
		_, err := fmt.Fprintf(e.stdout, "%d mistakes\n", n)
		return err
	}
	jobs := "no jobs"
	if len(r.Jobs) > 0 {
		jobs = "jobs " + strings.Join(r.Jobs, ", ")
	}
	_, err := fmt.Fprintf(e.stdout, "%s: no mistakes, %s\n", quote(r.File), jobs)
	return err
}

// jobCheck looks at one job on this host.
type jobCheck struct {
	name     string
	settings config.Settings
	found    []mistake
}

func (j *jobCheck) wrong(key string, code problem.Code, err error) {
	v := j.settings[key]
	j.found = append(j.found, mistake{v.Line, v.Column, j.name, key, code, strings.ReplaceAll(problem.Text(err), "\n", "; ")})
}

// checkJob finds what would end the job before anything is taken.
func (e *env) checkJob(ctx context.Context, c *config.Config, name string) (*jobCheck, error) {
	said, err := c.Job(name)
	if err != nil {
		return nil, err
	}
	j := &jobCheck{name: name, settings: config.Effective(said, nil, e.getenv, true)}
	s := j.settings
	for _, path := range s.List("paths") {
		if _, err := os.Stat(path); err != nil {
			j.wrong("paths", problem.PathMissing, err)
		}
	}
	for _, path := range s.List("exclude_file") {
		if _, err := patterns(path); err != nil {
			j.wrong("exclude_file", problem.ConfigWrong, err)
		}
	}
	choice, err := cacheOf(s).choice(e)
	if err != nil {
		key := "cache_dir"
		if strings.Contains(err.Error(), "cache-max") || strings.Contains(err.Error(), cacheMaxVariable) {
			key = "cache_max"
		}
		j.wrong(key, problem.ConfigWrong, err)
	}
	j.repository(ctx, e)
	if len(j.found) > 0 {
		return j, nil // the plan would say the same again
	}
	o, err := optionsOf(s)
	if err != nil {
		j.wrong("require", problem.ConfigWrong, err)
		return j, nil
	}
	en, err := newEngine(e, nil, choice)
	if err != nil {
		return nil, err
	}
	if err := en.Planned(ctx, o, s.Text("repo")); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		j.wrong("paths", problem.CodeOf(err), err)
	}
	return j, nil
}

// repository opens and closes it.
func (j *jobCheck) repository(ctx context.Context, e *env) {
	f := repoOf(e, j.settings)
	if _, err := f.folder(e); err != nil {
		j.wrong("repo", problem.ConfigWrong, fmt.Errorf("no repository is named, here or in defaults"))
		return
	}
	r, err := f.open(ctx, e)
	if err == nil {
		err = r.Close(context.WithoutCancel(ctx))
	}
	if err == nil {
		return
	}
	key := "repo"
	if code := problem.CodeOf(err); code == problem.PasswordMissing || code == problem.PasswordWrong {
		key = "password_file"
	}
	j.wrong(key, problem.CodeOf(err), err)
}
