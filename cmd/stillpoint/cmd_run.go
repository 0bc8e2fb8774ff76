package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"stillpoint/internal/capture"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/mount"
	"stillpoint/internal/sys/terminal"
	"stillpoint/internal/tool"
)

func newRun(e *env) *cobra.Command {
	var cache cacheFlags
	cmd := &cobra.Command{
		Use:   "run PATH... -- COMMAND [ARGUMENT...]",
		Short: "run a program that sees a snapshot at the live paths",
		Long: `Takes a snapshot of all volumes that hold something of the paths, of one moment,
and runs a program that sees it, read-only, at the live paths; everybody else
goes on with the live files. When the program ends, the snapshot is deleted.

The program has the terminal, the environment and the working directory of this
command, gets its signals, and its exit code is that of this command: 128 and the
number for a signal, 127 for a program that is not found. If the snapshot was
lost meanwhile the exit code is 1, whatever the program says. A snapshot of ZFS
that would fill its pool, or a quota, is given up: then the program, and what it
has started, is told to end (SIGTERM), and killed 5 s later: the pool has the room
only when nobody reads it any more.`,
		Example: `  stillpoint run /srv -- restic backup /srv
  stillpoint run /srv /home -- tar -cf /backup/all.tar /srv /home
  stillpoint run /srv --cache-dir /var/cache --cache-max 25% -- restic backup /srv`,
		Args: func(c *cobra.Command, args []string) error {
			dash := c.ArgsLenAtDash()
			if dash < 1 || dash == len(args) {
				return problem.Newf(problem.Usage, "", "paths, two dashes and a program are expected: %s", c.Use)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			dash := c.ArgsLenAtDash()
			return runRun(c.Context(), e, &cache, args[:dash], args[dash:])
		},
	}
	cache.add(cmd)
	return cmd
}

// exited is how a program of the user's ended, which is how we end.
type exited int

func (x exited) Error() string { return fmt.Sprintf("the program ended with exit code %d", int(x)) }

// passed are the signals that a program may want to get, besides those that
// end it.
var passed = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT}

func runRun(ctx context.Context, e *env, cache *cacheFlags, paths, command []string) error {
	choice, err := cache.choice(e)
	if err != nil {
		return err
	}
	program, err := tool.Find(command[0], command[1:]...)
	if err != nil {
		return notFound(e, err)
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passed...)
	defer signal.Stop(signals)
	s, err := captured(ctx, e, choice, paths)
	if err != nil {
		return err
	}
	// From here on the program decides when it ends.
	code, err := inView(ctx, e, s, program, signals)
	lost := s.Err()
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	released := s.Release(rctx)
	switch {
	case err != nil:
		return errors.Join(err, released)
	case lost != nil:
		return fmt.Errorf("the program ended with exit code %d, but what it read is suspect: %w", code, errors.Join(lost, released))
	case released != nil:
		return fmt.Errorf("the program ended with exit code %d: %w", code, released)
	case code != 0:
		return exited(code)
	}
	return nil
}

func notFound(e *env, err error) error {
	fmt.Fprintf(e.stderr, "stillpoint: %v\n", err)
	if errors.Is(err, fs.ErrPermission) {
		return exited(126)
	}
	return exited(127)
}

// captured takes the snapshots, and says what they do not cover.
func captured(ctx context.Context, e *env, cache snapshot.CacheChoice, paths []string) (*capture.Set, error) {
	paths, err := absolute(paths)
	if err != nil {
		return nil, err
	}
	t, err := host(ctx)
	if err != nil {
		return nil, err
	}
	p, err := capture.Make(ctx, t, providers(cache), paths)
	if err != nil {
		return nil, err
	}
	var kernel []string
	for _, u := range p.Uncovered {
		if u.Code == "" && strings.HasPrefix(u.Reason, "virtual ") {
			kernel = append(kernel, quote(u.Path))
			continue
		}
		fmt.Fprintf(e.stderr, "stillpoint: not covered, the live files show: %s (%s): %s\n", quote(u.Path), u.Type, u.Reason)
	}
	if len(kernel) > 0 {
		fmt.Fprintf(e.stderr, "stillpoint: not covered, file systems of the kernel: %s\n", strings.Join(kernel, " "))
	}
	apps, err := applications(e)
	if err != nil {
		return nil, err
	}
	return capture.Take(ctx, p, apps, func(ev quiesce.Event) {
		if ev.Err != nil || ev.Application == "" {
			fmt.Fprintf(e.stderr, "stillpoint: %s\n", quote(strings.Trim(ev.Application+": "+ev.Text, ": ")))
		}
	})
}

// inView runs the program where the snapshots show, and returns its exit code.
func inView(ctx context.Context, e *env, s *capture.Set, program *tool.Foreground, signals <-chan os.Signal) (code int, err error) {
	private, err := mount.NewPrivate()
	if err != nil {
		return 0, problem.New(problem.NotAllowed, "", err)
	}
	defer private.Close()
	if err := s.Show(private); err != nil {
		return 0, problem.New(problem.SnapshotFailed, s.ID, fmt.Errorf("show it at its live paths: %w", err))
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	// Not our habit of ignoring it, but what programs expect.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer func() { signal.Stop(broken); signal.Ignore(syscall.SIGPIPE) }()
	view, err := private.Namespace()
	if err != nil {
		return 0, problem.New(problem.SnapshotFailed, "", err)
	}
	defer view.Close()
	if err := private.Do(program.Start); err != nil {
		return 0, problem.New(problem.SnapshotFailed, "", fmt.Errorf("start the program: %w", err))
	}
	ended := make(chan struct{})
	go pass(signals, program, ended)
	s.WhenYielded(ended, func(why error) {
		fmt.Fprintf(e.stderr, "stillpoint: the snapshot is given up, and what reads it is ended: %s\n", problem.Text(why))
		end(view)
	})
	code, err = program.Wait()
	close(ended)
	if s.Yielded() {
		end(view) // what the program has started
	}
	return code, err
}

// end ends all programs that see the snapshots.
func end(view *os.File) {
	_, err := mount.Signal(view, syscall.SIGTERM) // once: some take a second one as impatience
	for began := time.Now(); err == nil && time.Since(began) < endTime; time.Sleep(50 * time.Millisecond) {
		var n int
		if n, err = mount.Signal(view, syscall.Signal(0)); n == 0 {
			return
		}
	}
	_, _ = mount.Signal(view, syscall.SIGKILL)
}

// endTime is how long they may take.
const endTime = 5 * time.Second

// pass passes signals on, but for those that the terminal gives to the whole
// group anyway.
func pass(signals <-chan os.Signal, program *tool.Foreground, ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case s := <-signals:
			switch s {
			case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH:
				if terminal.Signals() {
					continue
				}
			}
			_ = program.Signal(s) // else it has ended
		}
	}
}
