package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"stillpoint/internal/problem"
)

const rootHelp = `Stillpoint backs up a running Linux server to one consistent moment: it takes
a snapshot of every volume that holds selected data, reads the data from the
snapshots while the server goes on, and deletes the snapshots.

Exit codes:
  0    complete
  1    failed
  2    wrong flags or arguments
  3    complete with exceptions: the report names them
  4    busy: another process holds what this one needs
  130  cancelled

Environment:
  STILLPOINT_REPO           stands for --repo everywhere
  STILLPOINT_PASSWORD       the password of the repository
  STILLPOINT_PASSWORD_FILE  a file that holds it, as --password-file
  STILLPOINT_AGENT          the agent's socket (default /run/stillpoint/agent.sock)
  STILLPOINT_CACHE_DIR      stands for --cache-dir everywhere
  STILLPOINT_CACHE_MAX      stands for --cache-max everywhere
  STILLPOINT_CONFIG         the configuration (default /etc/stillpoint/config.yaml)
  STILLPOINT_STATE          folder for the job logs (default /var/lib/stillpoint)`

const rootExample = `  stillpoint init --repo /backup/repo
  stillpoint backup /srv /home --repo /backup/repo
  stillpoint restore latest:/srv/mail --to /tmp/x --repo /backup/repo
  stillpoint explain no-provider`

func newRoot(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:           "stillpoint",
		Short:         "back up running Linux servers to one consistent moment",
		Long:          rootHelp,
		Example:       rootExample,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetIn(e.stdin)
	c.SetOut(e.stdout)
	c.SetErr(e.stderr)
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return problem.New(problem.Usage, "", err) })
	c.CompletionOptions.HiddenDefaultCmd = false
	c.AddCommand(
		newInit(e), newBackup(e), newBackups(e), newLs(e), newRestore(e), newVerify(e),
		newVolumes(e), newProviders(e), newWriters(e), newDoctor(e), newExplain(e), newJob(e), newClean(e),
		newAgent(e), newSnapshot(e), newRun(e), newConfig(e), newNotify(e), newVersion(e),
	)
	c.InitDefaultHelpCmd()
	c.InitDefaultCompletionCmd()
	for _, made := range c.Commands() {
		switch made.Name() {
		case "help":
			made.Example = "  stillpoint help backup"
		case "completion":
			made.Example = "  stillpoint completion bash"
			for _, shell := range made.Commands() {
				shell.Example = "  stillpoint completion " + shell.Name() + " >FILE"
			}
		}
	}
	return c
}

// run runs one command line and returns its exit code.
func run(ctx context.Context, e *env, args []string) int {
	c := newRoot(e)
	c.SetArgs(codesFirst(args))
	err := c.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil && problem.CodeOf(err) == problem.Uncatalogued && !errors.Is(err, errExceptions) {
		err = problem.New(problem.Cancelled, "", err)
	}
	if isUnknown(err) {
		err = problem.New(problem.Usage, "", err)
	}
	err = output(err)
	e.say(err)
	return exitCode(err)
}

// isUnknown recognises cobra's complaint about a command that does not exist,
// the one error of usage that it makes without asking us.
func isUnknown(err error) bool {
	var p *problem.Problem
	return err != nil && !errors.As(err, &p) && len(err.Error()) > 15 && err.Error()[:15] == "unknown command"
}

func noArgs(c *cobra.Command, args []string) error { return usage(cobra.NoArgs(c, args)) }

func atLeast(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < n {
			return problem.Newf(problem.Usage, "", "%s is missing", what)
		}
		return nil
	}
}

func between(from, to int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := atLeast(from, what)(c, args); err != nil {
			return err
		}
		if len(args) > to {
			return problem.Newf(problem.Usage, args[to], "unexpected argument")
		}
		return nil
	}
}

func usage(err error) error {
	if err == nil {
		return nil
	}
	return problem.New(problem.Usage, "", fmt.Errorf("%w", err))
}

// jsonFlag adds --json.
func jsonFlag(c *cobra.Command, e *env) {
	c.Flags().BoolVar(&e.json, "json", false, "print JSON; doc/json.md fixes the fields")
}
