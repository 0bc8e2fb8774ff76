package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/volume"
)

func newWriters(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "writers [PATH...]",
		Short: "list the applications that can be brought to rest, and how they are",
		Long: `Lists the applications of this host that a backup would bring to rest for the
moment of its snapshots: databases that are found by their sockets and processes,
in containers, too, and scripts in /etc/stillpoint/freeze.d. With paths it lists
those that have files below them, and SQLite databases there, too, which are found
by looking at every file.

Each is asked whether it could be brought to rest now. STATE is stable, or failed
with what is missing. Nothing is changed.

How to connect, and what becomes of an application that cannot be brought to
rest, is set in /etc/stillpoint/config.yaml, or the file that STILLPOINT_CONFIG
names.`,
		Example: `  stillpoint writers
  stillpoint writers /srv /var/lib
  stillpoint writers --json`,
		RunE: func(c *cobra.Command, args []string) error { return runWriters(c.Context(), e, args) },
	}
	jsonFlag(c, e)
	return c
}

// writerInfo is one application in `writers --json`.
type writerInfo struct {
	ID      string       `json:"id"`
	Writer  string       `json:"writer"`
	Version string       `json:"version,omitempty"`
	State   string       `json:"state"`
	Policy  string       `json:"policy"`
	Paths   []string     `json:"paths"`
	Volumes []string     `json:"volumes"` // where these are mounted
	Code    problem.Code `json:"code,omitempty"`
	Error   string       `json:"error,omitempty"`

	PathsBytes   [][]byte `json:"paths_bytes,omitempty"`
	VolumesBytes [][]byte `json:"volumes_bytes,omitempty"`
}

func runWriters(ctx context.Context, e *env, args []string) error {
	s, err := applications(e)
	if err != nil {
		return err
	}
	paths, err := absolute(args)
	if err != nil {
		return err
	}
	t, err := host(ctx)
	if err != nil {
		return err
	}
	for i := range paths {
		if paths[i], err = t.Resolve(paths[i]); err != nil {
			return err
		}
	}
	all, err := quiesce.List(ctx, s, selectionOf(t, paths))
	if err != nil {
		return err
	}
	infos := []writerInfo{}
	for _, a := range all {
		infos = append(infos, writerInfoOf(a, t))
	}
	if e.json {
		return e.print(infos)
	}
	return e.printWriters(infos)
}

// selectionOf is what a listing asks about: all that there is, or what lies below
// paths.
func selectionOf(t *volume.Table, paths []string) quiesce.Selection {
	return quiesce.Selection{Paths: paths, Volume: func(path string) (string, bool) {
		v, _, _, err := t.Find(path)
		return string(v.ID), err == nil && v.Kind == volume.Local
	}}
}

func writerInfoOf(a *quiesce.Application, t *volume.Table) writerInfo {
	i := writerInfo{ID: a.ID, Writer: a.Writer, Version: a.Version, State: string(a.State), Policy: string(a.Policy), Paths: append([]string{}, a.Paths...), Volumes: []string{}}
	for _, v := range t.Volumes() {
		if slices.Contains(a.Volumes, string(v.ID)) && len(v.Mounts) > 0 {
			i.Volumes = append(i.Volumes, v.Mounts[0].Point)
		}
	}
	if a.Err != nil {
		i.Code, i.Error = problem.CodeOf(a.Err), problem.Text(a.Err)
	}
	i.PathsBytes, i.VolumesBytes = job.NotTexts(i.Paths), job.NotTexts(i.Volumes)
	return i
}

func (e *env) printWriters(infos []writerInfo) error {
	if len(infos) == 0 {
		_, err := fmt.Fprintln(e.stdout, "No application was found that could be brought to rest.")
		return err
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "APPLICATION\tVERSION\tSTATE\tIF NOT AT REST\tPATHS\tVOLUMES")
	for _, i := range infos {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", quote(i.ID), quote(i.Version), i.State, i.Policy, quoted(i.Paths), quoted(i.Volumes))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, i := range infos {
		if i.Error == "" {
			continue
		}
		if _, err := fmt.Fprintf(e.stdout, "\n%s [%s]\n", quote(strings.ReplaceAll(i.Error, "\n", "; ")), i.Code); err != nil {
			return err
		}
	}
	return nil
}

func quoted(all []string) string {
	var out []string
	for _, s := range all {
		out = append(out, quote(s))
	}
	return strings.Join(out, " ")
}
