package main

import (
	"context"
	"fmt"
	"slices"
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
  stillpoint job log 7k2m --follow
  stillpoint job retry`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newJobList(e), newJobShow(e), newJobLog(e), newJobRetry(e))
	return c
}

// jobFilter says which jobs are listed.
type jobFilter struct {
	failed bool
	last   int
	kind   string
	name   string
}

func newJobList(e *env) *cobra.Command {
	var f jobFilter
	c := &cobra.Command{
		Use:   "list",
		Short: "list the jobs, newest first",
		Example: `  stillpoint job list --json
  stillpoint job list --failed --last 5
  stillpoint job list --job nightly`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return runJobList(e, f) },
	}
	c.Flags().BoolVar(&f.failed, "failed", false, "only those that failed, died or were cancelled")
	c.Flags().IntVar(&f.last, "last", 0, "only so many, the newest; 0 for all")
	c.Flags().StringVar(&f.kind, "kind", "", "only one kind: backup, restore, verify, clean")
	c.Flags().StringVar(&f.name, "job", "", "only those of this name in the configuration")
	jsonFlag(c, e)
	return c
}

// of leaves those over that fit.
func (f jobFilter) of(all []job.Summary) []job.Summary {
	all = slices.DeleteFunc(all, func(s job.Summary) bool {
		bad := s.Status == job.Failed || s.Status == job.Died || s.Status == job.Cancelled
		return f.failed && !bad || f.kind != "" && string(s.Kind) != f.kind || f.name != "" && s.Name != f.name
	})
	if f.last > 0 {
		all = all[:min(f.last, len(all))]
	}
	return all
}

func runJobList(e *env, f jobFilter) error {
	switch job.Kind(f.kind) {
	case "", job.Backup, job.Restore, job.Verify, job.Clean:
	default:
		return problem.Newf(problem.Usage, "--kind", "%q is none of backup, restore, verify, clean", f.kind)
	}
	if f.last < 0 {
		return problem.Newf(problem.Usage, "--last", "cannot be negative")
	}
	dir, err := job.DefaultDir()
	if err != nil {
		return err
	}
	all, err := job.List(dir)
	if err != nil {
		return err
	}
	all = f.of(all)
	if e.json {
		return e.print(append([]job.Summary{}, all...))
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(e.stdout, "no jobs")
		return err
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTARTED\tKIND\tSTATUS\tCODE\tLEVEL\tEXCEPTIONS\tTOOK\tJOB")
	for _, s := range all {
		took := "-"
		if !s.Ended.IsZero() {
			took = time.Duration(s.Took).Round(time.Millisecond).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", s.ID, s.Started.Local().Format(time.DateTime), s.Kind, s.Status, dash(string(s.Code)), dash(string(s.Level)), s.Exceptions, took, dash(s.Name))
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func newJobLog(e *env) *cobra.Command {
	follow := false
	c := &cobra.Command{
		Use:   "log [ID]",
		Short: "print everything a job did, the newest without an id",
		Long: `Prints everything a job did, the newest without an id. --follow goes on while it
runs, and ends when it does, also when it dies; with --json it prints the lines as
they are in the log, one object each.`,
		Example: `  stillpoint job log
  stillpoint job log --follow
  stillpoint job log 7k2m --json`,
		Args: between(0, 1, ""),
		RunE: func(c *cobra.Command, args []string) error {
			if follow {
				return followJob(c.Context(), e, args)
			}
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
			return e.printEnd(j.Summary, j.Report)
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on while the job runs")
	jsonFlag(c, e)
	return c
}

// followJob prints a log while it is written.
func followJob(ctx context.Context, e *env, args []string) error {
	dir, id, err := whichJob(args, "")
	if err != nil {
		return err
	}
	s, report, err := job.Follow(ctx, dir, id, func(raw []byte, ev *job.Event) error {
		switch {
		case e.json:
			_, err := e.stdout.Write(raw)
			return err
		case ev != nil:
			return text.Event(e.stdout, *ev)
		}
		return nil
	})
	if err != nil || e.json {
		return err
	}
	return e.printEnd(s, report)
}

// printEnd prints the report of a job, or what it is without one.
func (e *env) printEnd(s job.Summary, r *job.Report) error {
	if r != nil {
		return text.Report(e.stdout, *r)
	}
	state := fmt.Sprintf("job %s: %s, no report", s.ID, s.Status)
	switch s.Status {
	case job.Running:
		state += fmt.Sprintf("; for %s, process %d", time.Since(s.Started).Round(time.Second), s.PID)
	case job.Died:
		state += fmt.Sprintf(" [%s]; its last line is of %s\n  %[1]s: read what it means and what to do with `stillpoint explain %[1]s`", s.Code, s.Ended.Local().Format(time.DateTime))
	}
	_, err := fmt.Fprintln(e.stdout, state)
	return err
}

// loadJob loads the job that is named, else the newest.
func loadJob(args []string) (job.Job, error) { return loadJobOf(args, "") }

// loadJobOf is loadJob with the newest of one kind.
func loadJobOf(args []string, kind job.Kind) (job.Job, error) {
	dir, id, err := whichJob(args, kind)
	if err != nil {
		return job.Job{}, err
	}
	return job.Load(dir, id)
}

func whichJob(args []string, kind job.Kind) (dir, id string, err error) {
	if dir, err = job.DefaultDir(); err != nil {
		return "", "", err
	}
	if len(args) == 1 {
		return dir, args[0], nil
	}
	all, err := job.List(dir)
	if err != nil {
		return "", "", err
	}
	all = jobFilter{kind: string(kind)}.of(all)
	if len(all) == 0 {
		return "", "", problem.Newf(problem.NoSuchJob, "", "no job has run here yet")
	}
	return dir, all[0].ID, nil
}
