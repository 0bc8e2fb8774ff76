package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

func newClean(e *env) *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use:   "clean",
		Short: "remove what killed runs left behind",
		Long: `Removes the snapshots of runs that were killed, and closes their job logs. Only
what carries our tag and is recorded there with its UUID is removed; what looks
like ours and is not proven to be is named and left alone. Every backup does the
same when it starts. What was done is in ` + "`stillpoint job log`" + `, also when there
was nothing to do; --dry-run is no job.`,
		Example: `  stillpoint clean --dry-run
  stillpoint clean`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runClean(c.Context(), e, dry) },
	}
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "show what would be removed")
	jsonFlag(c, e)
	return c
}

// leftoverInfo is one thing in `clean --json`.
type leftoverInfo struct {
	What    string       `json:"what"` // snapshot, job, foreign
	ID      string       `json:"id"`
	Volume  string       `json:"volume,omitempty"`
	Removed bool         `json:"removed"`
	Code    problem.Code `json:"code,omitempty"`
	Text    string       `json:"text"`
}

func runClean(ctx context.Context, e *env, dry bool) error {
	en, err := newEngine(e, nil, snapshot.CacheChoice{})
	if err != nil {
		return err
	}
	clean := en.Clean
	if dry {
		clean = en.Leftovers
	}
	found, err := clean(ctx)
	infos := []leftoverInfo{}
	for _, l := range found {
		infos = append(infos, leftoverInfo{l.What, l.ID, l.Volume, l.Removed, l.Code, l.Text})
	}
	if e.json {
		if perr := e.print(infos); perr != nil {
			return perr
		}
		return cleaned(infos, err)
	}
	if len(infos) == 0 && err == nil {
		fmt.Fprintln(e.stdout, "nothing left behind")
	}
	for _, i := range infos {
		fmt.Fprintln(e.stdout, i.Text)
	}
	return cleaned(infos, err)
}

// cleaned is exceptional where something stays.
func cleaned(infos []leftoverInfo, err error) error {
	if err != nil {
		return err
	}
	for _, i := range infos {
		if i.Code != "" {
			return errExceptions
		}
	}
	return nil
}
