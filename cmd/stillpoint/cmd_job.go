package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"stillpoint/internal/job"
	"stillpoint/internal/job/text"
	"stillpoint/internal/problem"
)

func newJob(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "job",
		Short: "look at the jobs of this host and their logs",
		Example: `  stillpoint job list
  stillpoint job show
  stillpoint job log 7k2m`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newJobList(e), newJobShow(e), newJobLog(e))
	return c
}

func newJobList(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:     "list",
		Short:   "list the jobs, newest first",
		Example: "  stillpoint job list --json",
		Args:    noArgs,
		RunE:    func(*cobra.Command, []string) error { return runJobList(e) },
	}
	jsonFlag(c, e)
	return c
}

func runJobList(e *env) error {
	dir, err := job.DefaultDir()
	if err != nil {
		return err
	}
	all, err := job.List(dir)
	if err != nil {
		return err
	}
	if e.json {
		return e.print(append([]job.Summary{}, all...))
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(e.stdout, "no jobs")
		return err
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTARTED\tKIND\tSTATUS\tCODE\tLEVEL\tEXCEPTIONS\tTOOK")
	for _, s := range all {
		took := "-"
		if !s.Ended.IsZero() {
			took = time.Duration(s.Took).Round(time.Millisecond).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", s.ID, s.Started.Local().Format(time.DateTime), s.Kind, s.Status, dash(string(s.Code)), dash(string(s.Level)), s.Exceptions, took)
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func newJobShow(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "show [ID]",
		Short: "print the report of a job, the newest without an id",
		Example: `  stillpoint job show
  stillpoint job show 7k2m --json
  stillpoint job show 7k2m --report html >job.html`,
		Args: between(0, 1, ""),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := e.onePrint(); err != nil {
				return err
			}
			j, err := loadJob(args)
			if err != nil {
				return err
			}
			if e.page.wanted {
				return e.printPage(j.ID)
			}
			if j.Report == nil {
				if e.json {
					return e.print(j.Summary)
				}
				_, err := fmt.Fprintf(e.stdout, "job %s: %s, no report\n", j.ID, j.Status)
				return err
			}
			if e.json {
				return e.print(j.Report)
			}
			return text.Report(e.stdout, *j.Report)
		},
	}
	addPage(c, e)
	jsonFlag(c, e)
	return c
}

func newJobLog(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "log [ID]",
		Short: "print everything a job did, the newest without an id",
		Example: `  stillpoint job log
  stillpoint job log 7k2m --json`,
		Args: between(0, 1, ""),
		RunE: func(_ *cobra.Command, args []string) error {
			j, err := loadJob(args)
			if err != nil {
				return err
			}
			if e.json {
				return e.print(j)
			}
			for _, ev := range j.Events {
				if err := text.Event(e.stdout, ev); err != nil {
					return err
				}
			}
			if j.Report == nil {
				_, err := fmt.Fprintf(e.stdout, "job %s: %s, no report\n", j.ID, j.Status)
				return err
			}
			return text.Report(e.stdout, *j.Report)
		},
	}
	jsonFlag(c, e)
	return c
}

// loadJob loads the job that is named, else the newest.
func loadJob(args []string) (job.Job, error) {
	dir, err := job.DefaultDir()
	if err != nil {
		return job.Job{}, err
	}
	if len(args) == 1 {
		return job.Load(dir, args[0])
	}
	all, err := job.List(dir)
	if err != nil {
		return job.Job{}, err
	}
	if len(all) == 0 {
		return job.Job{}, problem.Newf(problem.NoSuchJob, "", "no job has run here yet")
	}
	return job.Load(dir, all[0].ID)
}
