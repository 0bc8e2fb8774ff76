package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"stillpoint/internal/backup"
	"stillpoint/internal/job"
	"stillpoint/internal/job/text"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
)

type backupFlags struct {
	repo         repoFlags
	cache        cacheFlags
	exclude      []string
	excludeFiles []string
	provider     string
	require      []string
	oneFS        bool
	verbose      bool
	silent       bool
	checkpoint   time.Duration
	oneAtATime   bool
	quiet        time.Duration
	quietTimeout time.Duration
	noQuiet      string
}

func newBackup(e *env) *cobra.Command {
	var f backupFlags
	c := &cobra.Command{
		Use:   "backup PATH...",
		Short: "back up paths from snapshots of their volumes",
		Long: `Takes a snapshot of every volume that holds something of the paths, stores the
data from the snapshots under the live paths, and deletes the snapshots.

What is mounted below a path belongs to it, and so do btrfs subvolumes nested
there; but for memory, network and kernel file systems and read-only btrfs
snapshots (of snapper, timeshift …), which are left out and named in the report,
unless selected themselves. Without a snapshot provider for a volume the backup
fails with no-provider; --provider none reads the live files instead and labels
the backup "live".

--exclude takes patterns: one without a slash is compared with every name
('*.tmp'); one that begins with a slash with the whole live path ('/srv/cache');
any other with the end of the path ('node_modules/.cache'). * and ? stand for
anything but a slash, ** for any number of directories, [a-z] and {a,b} for one
of several. A directory that fits is left out with all that is in it; a path
that is selected itself never is. The report says how much each pattern left
out, and which fitted nothing.

--cache-dir and --cache-max are for volumes of ext4 and XFS: the originals of what
changes during the backup are kept in a cache file, on the local volume with most
room, or, where there is no other one, on the volume itself.

Applications that are found (see ` + "`stillpoint writers`" + `) are brought to rest for the
moment of the snapshots. One that cannot be is treated as its policy in
/etc/stillpoint/config.yaml says, and the report names it.

All volumes are taken at one instant if they can be. --one-at-a-time takes one
volume after the other instead: its snapshot is taken, stored and released before
the next one's is taken. --quiet waits until nobody has written to the volumes
for so long.

--require one-instant fails, before anything is stored, where the selection
cannot be taken at one instant; --require application, where not all applications
that are found can be brought to rest, or there are none.`,
		Example: `  stillpoint backup /srv /home --exclude '*.tmp'
  stillpoint backup / --exclude /var/cache --require one-instant
  stillpoint backup /srv --cache-dir /var/cache --cache-max 20G
  stillpoint backup /srv /var/lib/postgresql --require application
  stillpoint backup /srv /home --quiet 500ms --no-quiet continue
  stillpoint backup /srv --report html=/var/www/backup.html
  stillpoint backup /mnt/usb --provider none`,
		Args: atLeast(1, "a path to back up"),
		RunE: func(c *cobra.Command, args []string) error { return runBackup(c.Context(), e, &f, args) },
	}
	f.repo.add(c)
	f.cache.add(c)
	c.Flags().StringArrayVarP(&f.exclude, "exclude", "e", nil, "leave out what fits this pattern; may be given several times")
	c.Flags().StringArrayVar(&f.excludeFiles, "exclude-file", nil, "leave out what fits a pattern in this file, one per line, # for comments")
	c.Flags().StringVar(&f.provider, "provider", backup.Auto, "snapshot provider: auto, none (read live), or one of those that the command providers lists")
	c.Flags().StringArrayVar(&f.require, "require", nil, "fail where this cannot be had: one-instant, application; may be given several times")
	c.Flags().BoolVar(&f.oneAtATime, "one-at-a-time", false, "take one volume after the other, each at an instant of its own")
	c.Flags().DurationVar(&f.quiet, "quiet", 0, "wait until nobody has written to the volumes for so long; 0 waits for nothing")
	c.Flags().DurationVar(&f.quietTimeout, "quiet-timeout", 30*time.Second, "how long to wait for that")
	c.Flags().StringVar(&f.noQuiet, "no-quiet", string(backup.ElseFail), "what to do if it does not come: fail, continue (without), one-at-a-time")
	c.Flags().BoolVarP(&f.oneFS, "one-file-system", "x", false, "leave out what is mounted below the paths")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "print every event of the job")
	c.Flags().BoolVarP(&f.silent, "silent", "q", false, "print nothing but errors")
	c.Flags().DurationVar(&f.checkpoint, "checkpoint", 5*time.Minute, "how often an unfinished backup is made resumable; 0 for never")
	addPage(c, e)
	jsonFlag(c, e)
	return c
}

func runBackup(ctx context.Context, e *env, f *backupFlags, paths []string) error {
	o := backup.Options{
		Paths: paths, Exclude: f.exclude, Provider: f.provider, OneFileSystem: f.oneFS, Checkpoint: f.checkpoint,
		Progress: &repository.Progress{},
	}
	if err := f.demands(&o); err != nil {
		return err
	}
	if err := e.onePrint(); err != nil {
		return err
	}
	if f.checkpoint < 0 {
		return problem.Newf(problem.Usage, "--checkpoint", "cannot be negative")
	}
	for _, path := range paths {
		if path == "" {
			return problem.Newf(problem.Usage, `""`, "is no path")
		}
	}
	for _, name := range f.excludeFiles {
		ps, err := patterns(name)
		if err != nil {
			return err
		}
		o.Exclude = append(o.Exclude, ps...)
	}
	if _, err := f.repo.folder(e); err != nil {
		return err
	}
	choice, err := f.cache.choice(e)
	if err != nil {
		return err
	}
	w := e.watcher(f.verbose, f.silent)
	en, err := newEngine(e, w.event, choice)
	if err != nil {
		return err
	}
	p := e.progress("stored", f.silent, func() done {
		t := o.Progress.Total()
		return done{files: t.Files, bytes: t.Bytes}
	})
	o.Expect, o.Counted = p.expect, p != nil
	w.over = p
	rep, err := en.Backup(ctx, func(ctx context.Context) (*repository.Repository, error) {
		r, err := f.repo.open(ctx, e)
		p.start()
		return r, err
	}, o)
	p.stop()
	return e.report(rep, err, w, f.silent)
}

// demands takes over what the capture has to be like.
func (f *backupFlags) demands(o *backup.Options) error {
	for _, r := range f.require {
		switch r {
		case "one-instant":
			o.OneInstant = true
		case "application":
			o.Application = true
		default:
			return problem.Newf(problem.Usage, r, "cannot be required; one-instant and application can")
		}
	}
	o.OneAtATime = f.oneAtATime
	if o.OneAtATime && o.OneInstant {
		return problem.Newf(problem.Usage, "--one-at-a-time", "cannot be had with --require one-instant")
	}
	if f.quiet < 0 || f.quietTimeout <= 0 {
		return problem.Newf(problem.Usage, "--quiet", "and --quiet-timeout are times like 500ms and 30s")
	}
	o.Quiet = backup.Quiet{For: f.quiet, Timeout: f.quietTimeout, Else: backup.Otherwise(f.noQuiet)}
	switch o.Quiet.Else {
	case backup.ElseFail, backup.ElseContinue:
	case backup.ElseOneAtATime:
		if o.OneInstant {
			return problem.Newf(problem.Usage, "--no-quiet one-at-a-time", "cannot be had with --require one-instant")
		}
	default:
		return problem.Newf(problem.Usage, f.noQuiet, "is none of fail, continue, one-at-a-time")
	}
	return nil
}

// patterns reads a file of exclude patterns.
func patterns(name string) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, problem.New(problem.Usage, "", err)
	}
	defer f.Close()
	var out []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		if line := s.Text(); strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	if err := s.Err(); err != nil {
		return nil, problem.New(problem.Usage, name, err)
	}
	return out, nil
}

// report prints how a job ended.
func (e *env) report(rep *job.Report, err error, w *watcher, quiet bool) error {
	if rep == nil {
		return err
	}
	var perr error
	if e.page.wanted {
		perr = e.printPage(rep.Job)
	}
	switch {
	case e.page.instead():
		w.rest()
	case e.json:
		perr = errors.Join(perr, e.print(rep))
	case !quiet:
		w.rest()
		perr = errors.Join(perr, text.Report(e.stdout, *rep))
	default:
		e.say(err)
	}
	if perr != nil {
		// How the job ended is in its log, and decides the exit code; that
		// nobody could read it here is said besides.
		e.say(output(perr))
	}
	if problem.CodeOf(err) == problem.Uncatalogued && err != nil {
		fmt.Fprintln(e.stderr, "stillpoint: this failure has no code yet; please report it with the job's log")
	}
	return ended(rep, err)
}
