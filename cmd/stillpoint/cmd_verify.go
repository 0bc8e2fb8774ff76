package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"stillpoint/internal/backup"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/snapshot"
)

type verifyFlags struct {
	repo     repoFlags
	host     string
	readData bool
	quiet    bool
}

func newVerify(e *env) *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{
		Use:   "verify [BACKUP]",
		Short: "check that backups can be restored",
		Long: `Checks that everything a backup leads to is in the repository: every listing can
be read, and every piece of every file is in a pack that exists and is long
enough. With --read-data every byte is read, too, and its hash checked. Without
a backup all are checked, with --host those of that host.`,
		Example: `  stillpoint verify
  stillpoint verify --host web1
  stillpoint verify latest --read-data`,
		Args: between(0, 1, ""),
		RunE: func(c *cobra.Command, args []string) error { return runVerify(c.Context(), e, &f, args) },
	}
	f.repo.add(c)
	c.Flags().StringVar(&f.host, "host", "", "whose backups (default all), or whose latest (default this host; \"all\" for any)")
	c.Flags().BoolVar(&f.readData, "read-data", false, "read every byte and check its hash")
	c.Flags().BoolVarP(&f.quiet, "silent", "q", false, "print nothing but errors")
	addPage(c, e)
	jsonFlag(c, e)
	return c
}

func runVerify(ctx context.Context, e *env, f *verifyFlags, args []string) error {
	if err := e.onePrint(); err != nil {
		return err
	}
	if _, err := f.repo.folder(e); err != nil {
		return err
	}
	w := e.watcher(false, f.quiet)
	en, err := newEngine(e, w.event, snapshot.CacheChoice{})
	if err != nil {
		return err
	}
	o := backup.VerifyOptions{ReadData: f.readData, Progress: &repository.VerifyProgress{}}
	p := e.progress("verified", f.quiet, func() done {
		if f.readData {
			return done{o.Progress.Files.Load(), o.Progress.Read.Load()}
		}
		return done{o.Progress.Files.Load(), o.Progress.Bytes.Load()}
	})
	w.over = p
	o.Expect = p.expect
	o.Choose = func(ctx context.Context, r *repository.Repository) ([]repository.Backup, error) {
		defer p.start()
		if len(args) == 0 {
			return backupsOf(ctx, r, f.host)
		}
		b, _, err := choose(ctx, r, f.host, args[0])
		return []repository.Backup{b}, err
	}
	rep, err := en.Verify(ctx, func(ctx context.Context) (*repository.Repository, error) { return f.repo.open(ctx, e) }, o)
	p.stop()
	return e.report(rep, err, w, f.quiet)
}

// backupsOf lists all backups of a host; "" and "all" stand for any.
func backupsOf(ctx context.Context, r *repository.Repository, host string) ([]repository.Backup, error) {
	all, err := r.Backups(ctx)
	if err != nil || host == "" || host == "all" {
		return all, err
	}
	all = slices.DeleteFunc(all, func(b repository.Backup) bool { return b.Host != host })
	if len(all) == 0 {
		return nil, problem.Newf(problem.NoSuchBackup, host, "there is no backup of this host")
	}
	return all, nil
}
