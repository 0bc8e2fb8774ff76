package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"stillpoint/internal/job"
	"stillpoint/internal/repository"
)

func newInit(e *env) *cobra.Command {
	var f repoFlags
	c := &cobra.Command{
		Use:   "init",
		Short: "make a new repository in an empty folder",
		Long: `Makes a new, encrypted repository in a folder that is empty or does not exist.

The password is asked for at the terminal, or comes from --password-file,
STILLPOINT_PASSWORD or STILLPOINT_PASSWORD_FILE. Without it nothing in the
repository can ever be read again: keep a copy of it on another machine.`,
		Example: `  stillpoint init --repo /backup/repo
  STILLPOINT_REPO=/backup/repo stillpoint init --password-file /root/backup.password`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runInit(c.Context(), e, &f) },
	}
	f.add(c)
	jsonFlag(c, e)
	return c
}

// initInfo is what `init --json` prints.
type initInfo struct {
	Path      string `json:"path"`
	PathBytes []byte `json:"path_bytes,omitempty"`
}

func runInit(ctx context.Context, e *env, f *repoFlags) error {
	path, err := f.folder(e)
	if err != nil {
		return err
	}
	password, err := f.password(e, true)
	if err != nil {
		return err
	}
	if err := repository.Create(ctx, path, password, repository.Options{Identity: identity()}); err != nil {
		return err
	}
	if e.json {
		return e.print(initInfo{path, job.NotText(path)})
	}
	_, err = fmt.Fprintf(e.stdout, "Made a repository in %s.\nWithout its password nothing in it can be read again: keep a copy on another machine.\n", path)
	return err
}
