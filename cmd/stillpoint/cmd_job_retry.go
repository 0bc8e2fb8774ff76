package main

import (
	"context"

	"github.com/spf13/cobra"

	"stillpoint/internal/config"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

func newJobRetry(e *env) *cobra.Command {
	var f backupFlags
	c := &cobra.Command{
		Use:   "retry [ID]",
		Short: "run a backup again with the same settings, the newest one without an id",
		Long: `Runs a backup again with the settings that its log keeps, whether they came from
flags or from the configuration, and whatever the configuration says now. What an
interrupted one had stored is not read or sent again.

A password that was in the environment or was typed in is not in the log: give it
again.`,
		Example: `  stillpoint job retry
  stillpoint job retry 7k2m`,
		Args: between(0, 1, ""),
		RunE: func(c *cobra.Command, args []string) error { return runJobRetry(c.Context(), e, &f, args) },
	}
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "print every event of the job")
	c.Flags().BoolVarP(&f.silent, "silent", "q", false, "print nothing but errors")
	jsonFlag(c, e)
	return c
}

func runJobRetry(ctx context.Context, e *env, f *backupFlags, args []string) error {
	j, err := loadJobOf(args, job.Backup)
	if err != nil {
		return err
	}
	switch {
	case j.Status == job.Running:
		return problem.Newf(problem.Busy, j.ID, "this job still runs")
	case j.Kind != job.Backup:
		return problem.Newf(problem.Usage, j.ID, "is a %s; only backups are run again from their log", j.Kind)
	}
	kept, err := j.Settings()
	if err != nil {
		return err
	}
	said, err := config.Recorded(kept, j.ID)
	if err != nil {
		return err
	}
	// What the job was told, it was told with the environment of then.
	nothing := func(string) string { return "" }
	t := task{name: j.Name, retryOf: j.ID, said: said, settings: config.Effective(said, nil, nothing, j.Name != "")}
	return e.backUp(ctx, t, f)
}
