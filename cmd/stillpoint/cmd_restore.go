package main

import (
	"bufio"
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"stillpoint/internal/backup"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/tree"
)

type restoreFlags struct {
	repo      repoFlags
	host      string
	to        string
	inPlace   bool
	dryRun    bool
	overwrite string
	verbose   bool
	quiet     bool
}

func newRestore(e *env) *cobra.Command {
	var f restoreFlags
	c := &cobra.Command{
		Use:   "restore BACKUP[:PATH]",
		Short: "bring files and trees back, with every attribute",
		Long: `Restores what BACKUP[:PATH] names below the folder --to, under its live path:
latest:/srv/mail --to /tmp/x makes /tmp/x/srv/mail. --in-place restores to where
it was.

Nothing is ever written outside the folder, and no symbolic link below it is
followed. A file appears under its name only when it is whole. An interrupted
restore is continued by the same command. What is there already stays as it is
and is named in the report, unless --overwrite says newer (replace what is older
than the backup) or always.`,
		Example: `  stillpoint restore latest:/srv/mail --to /tmp/x
  stillpoint restore 7k2m:/etc/fstab --in-place --overwrite always
  stillpoint restore latest --to /mnt/new --dry-run`,
		Args: between(1, 1, "what to restore"),
		RunE: func(c *cobra.Command, args []string) error { return runRestore(c.Context(), e, &f, args[0]) },
	}
	f.repo.add(c)
	c.Flags().StringVar(&f.host, "host", "", "whose latest backup; \"all\" for any (default this host)")
	c.Flags().StringVarP(&f.to, "to", "t", "", "folder to restore into")
	c.Flags().BoolVar(&f.inPlace, "in-place", false, "restore to the live paths")
	c.Flags().BoolVarP(&f.dryRun, "dry-run", "n", false, "show what would be done, and write nothing")
	c.Flags().StringVar(&f.overwrite, "overwrite", "never", "what to do with other files in the way: never, newer, always")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "print every event of the job")
	c.Flags().BoolVarP(&f.quiet, "silent", "q", false, "print nothing but errors")
	addPage(c, e)
	jsonFlag(c, e)
	return c
}

func runRestore(ctx context.Context, e *env, f *restoreFlags, spec string) error {
	o := backup.RestoreOptions{To: f.to, Progress: &backup.RestoreProgress{}}
	switch {
	case f.inPlace && f.to != "", !f.inPlace && f.to == "":
		return problem.Newf(problem.Usage, "", "give either --to FOLDER or --in-place")
	case f.inPlace:
		o.To = "/"
	}
	err := e.onePrint()
	if f.dryRun && e.page.wanted {
		err = problem.Newf(problem.Usage, "--report", "is of a job, and --dry-run is none")
	}
	if err != nil {
		return err
	}
	if o.To, err = filepath.Abs(o.To); err != nil {
		return problem.New(problem.Usage, "", err)
	}
	var ok bool
	if o.Overwrite, ok = map[string]tree.Overwrite{"never": tree.Never, "newer": tree.Newer, "always": tree.Always}[f.overwrite]; !ok {
		return problem.Newf(problem.Usage, f.overwrite, "--overwrite is never, newer or always")
	}
	if _, _, err := repository.ParseSpec(spec); err != nil {
		return err
	}
	if _, err := f.repo.folder(e); err != nil {
		return err
	}
	w := e.watcher(f.verbose, f.quiet)
	en := &backup.Engine{} // a rehearsal is no job
	if !f.dryRun {
		if en, err = newEngine(e, w.event, snapshot.CacheChoice{}); err != nil {
			return err
		}
	}
	p := e.progress("restored", f.quiet, func() done {
		return done{o.Progress.Files.Load(), o.Progress.Bytes.Load()}
	})
	w.over = p
	o.Expect = p.expect
	o.Choose = func(ctx context.Context, r *repository.Repository) (repository.Backup, []repository.Selected, error) {
		if !f.dryRun {
			defer p.start()
		}
		return choose(ctx, r, f.host, spec)
	}
	open := func(ctx context.Context) (*repository.Repository, error) { return f.repo.open(ctx, e) }
	if f.dryRun {
		p.stop()
		return e.rehearse(ctx, en, open, o)
	}
	rep, err := en.Restore(ctx, open, o)
	p.stop()
	return e.report(rep, err, w, f.quiet)
}

// rehearsedInfo is one name in `restore --dry-run --json`. What is there
// already as it would be restored is not listed.
type rehearsedInfo struct {
	Path      string       `json:"path"`
	PathBytes []byte       `json:"path_bytes,omitempty"`
	What      string       `json:"what"` // make, replace, keep
	Code      problem.Code `json:"code,omitempty"`
	Text      string       `json:"text,omitempty"`
}

// rehearse prints what a restore would do, one line per name.
func (e *env) rehearse(ctx context.Context, en *backup.Engine, open backup.Open, o backup.RestoreOptions) error {
	infos := []rehearsedInfo{}
	out := bufio.NewWriter(e.stdout)
	n, err := en.Rehearse(ctx, open, o, func(path, what string, err error) {
		i := rehearsedInfo{Path: path, PathBytes: job.NotText(path), What: what}
		if err != nil {
			i.What, i.Code, i.Text = "keep", problem.CodeOf(err), problem.Text(err)
		}
		if e.json {
			infos = append(infos, i)
			return
		}
		fmt.Fprintf(out, "%-8s %s", i.What, quote(path))
		if i.Code != "" {
			fmt.Fprintf(out, "  (%s: %s)", i.Code, quote(i.Text))
		}
		fmt.Fprintln(out)
	})
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	if e.json && err == nil {
		err = e.print(infos)
	}
	if err == nil && n > 0 {
		err = errExceptions
	}
	return err
}
