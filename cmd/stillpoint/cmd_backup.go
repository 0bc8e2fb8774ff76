package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"stillpoint/internal/config"
	"stillpoint/internal/job"
	"stillpoint/internal/job/text"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
)

type backupFlags struct {
	job     string
	verbose bool
	silent  bool
}

func newBackup(e *env) *cobra.Command {
	var f backupFlags
	c := &cobra.Command{
		Use:   "backup PATH... | backup --job NAME",
		Short: "back up paths from snapshots of their volumes",
		Long: `Takes a snapshot of every volume that holds something of the paths, stores the
data from the snapshots under the live paths, and deletes the snapshots.

What is mounted below a path belongs to it, and so do btrfs subvolumes nested
there; but for memory, network and kernel file systems and read-only btrfs
snapshots (of snapper, timeshift …), which are left out and named in the report,
unless selected themselves. Without a snapshot provider for a volume the backup
fails with no-provider; --provider none reads the live files instead and labels
the backup "live". --provider /mnt/usb=none holds for that path alone.

--open-files is for volumes that no snapshot can be taken of. With fail, the backup
fails; else they are read live, and of files that somebody has open for writing
skip leaves each out, wait:30s waits so long for each to be closed, lock keeps others
from opening a file for writing while it is read (who wants it gets it, and it is
read again), and read takes them as they are. All that is not as it should be is an
exception.

--job NAME takes what to do from that job in the configuration (see
` + "`stillpoint config`" + `); flags and paths given beside it come first, and the log says so.
--exceptions none fails a job whose backup has exceptions; the backup is kept.
--retry N tries again what failed and may pass: no room, not in time, lost.

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
  stillpoint backup /mnt/usb --provider none
  stillpoint backup --job nightly
  stillpoint backup /srv /mnt/usb --open-files wait:30s --retry 3`,
		Args: func(c *cobra.Command, args []string) error {
			if f.job != "" {
				return nil
			}
			return atLeast(1, "a path to back up")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			s, err := given(c, args)
			if err != nil {
				return err
			}
			return runBackup(c.Context(), e, &f, s)
		},
	}
	addSettings(c)
	c.Flags().StringVar(&f.job, "job", "", "take what to do from this job in the configuration")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "print every event of the job")
	c.Flags().BoolVarP(&f.silent, "silent", "q", false, "print nothing but errors")
	addPage(c, e)
	jsonFlag(c, e)
	return c
}

func runBackup(ctx context.Context, e *env, f *backupFlags, flags config.Settings) error {
	t := task{name: f.job}
	if f.job != "" {
		c, err := configuration(e)
		if err != nil {
			return err
		}
		if t.said, err = c.Job(f.job); err != nil {
			return err
		}
	}
	t.settings = config.Effective(t.said, flags, e.getenv, f.job != "")
	return e.backUp(ctx, t, f)
}

// A task is one backup to be taken.
type task struct {
	name     string          // in the configuration; may be empty
	retryOf  string          // the job that is run again; may be empty
	said     config.Settings // by the configuration or the log of that job
	settings config.Settings // what holds in the end
}

// backUp takes a backup and prints how it went.
func (e *env) backUp(ctx context.Context, t task, f *backupFlags) error {
	s := t.settings
	if err := e.onePrint(); err != nil {
		return err
	}
	repo := repoOf(e, s)
	o, err := optionsOf(s)
	if err != nil {
		return err
	}
	o.Said = config.Overridden(t.said, s)
	if t.said == nil {
		o.Said = nil // nothing that they hold against
	}
	if _, err := repo.folder(e); err != nil {
		return err
	}
	choice, err := cacheOf(s).choice(e)
	if err != nil {
		return err
	}
	if o.Concerns, err = concerns(e); err != nil {
		return err
	}
	w := e.watcher(f.verbose, f.silent)
	en, err := newEngine(e, w.event, choice, s.List("notify")...)
	if err != nil {
		return err
	}
	en.Applications = policiesOf(s, en.Applications)
	en.JobName, en.RetryOf, en.Settings = t.name, t.retryOf, recordOf(s)
	p := e.progress("stored", f.silent, func() done {
		t := o.Progress.Total()
		return done{files: t.Files, bytes: t.Bytes}
	})
	o.Expect, o.Counted = p.expect, p != nil
	w.over = p
	started := sync.OnceFunc(p.start)
	rep, err := en.Backup(ctx, func(ctx context.Context) (*repository.Repository, error) {
		r, err := repo.open(ctx, e)
		started()
		return r, err
	}, o)
	p.stop()
	return e.report(rep, err, w, f.silent)
}

// concerns are the mistakes of the configuration by which jobs cannot run, for one
// that can: whoever reads no other report reads of them there.
func concerns(e *env) (all []job.Concern, err error) {
	c, err := configuration(e)
	if err != nil {
		return nil, err
	}
	for _, m := range c.Wrong() {
		all = append(all, job.Concern{Code: problem.ConfigWrong, Subject: c.File, Text: "the job " + m.Job + " cannot run: " + m.Error()})
	}
	return all, nil
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
