package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"stillpoint/internal/agent"
	"stillpoint/internal/capture"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

func newSnapshot(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "snapshot",
		Short: "take a snapshot by itself, which the agent keeps",
		Long: `Takes, lists, mounts and deletes snapshots that are no part of a backup. The
agent keeps them: start it first. A snapshot is there until it is deleted, or the
agent ends; it is lost earlier when its cache file is full.`,
		Example: `  stillpoint snapshot create /srv
  stillpoint snapshot list`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newSnapshotCreate(e), newSnapshotList(e), newSnapshotMount(e), newSnapshotDelete(e))
	return c
}

func newSnapshotCreate(e *env) *cobra.Command {
	var cache cacheFlags
	c := &cobra.Command{
		Use:   "create PATH...",
		Short: "take a snapshot of what the paths show, of one moment",
		Long: `Takes a snapshot of all volumes that hold something of the paths, and prints its
id. What is mounted below the paths and cannot be taken is named.`,
		Example: `  stillpoint snapshot create /srv
  stillpoint snapshot create /srv /home --json
  stillpoint snapshot create /srv --cache-dir /var/cache --cache-max 20G`,
		Args: atLeast(1, "a path to take a snapshot of"),
		RunE: func(c *cobra.Command, args []string) error { return runSnapshotCreate(c.Context(), e, &cache, args) },
	}
	cache.add(c)
	jsonFlag(c, e)
	return c
}

// snapshotInfo is one snapshot in `snapshot list --json`.
type snapshotInfo struct {
	ID           string                    `json:"id"`
	Taken        time.Time                 `json:"taken"`
	Paths        []string                  `json:"paths"`
	PathsBytes   [][]byte                  `json:"paths_bytes,omitempty"`
	State        string                    `json:"state"`
	Volumes      []snapshotVolumeInfo      `json:"volumes"`
	Uncovered    []uncoveredInfo           `json:"uncovered"`
	Applications []snapshotApplicationInfo `json:"applications"`
	Mounts       []string                  `json:"mounts"`
	MountsBytes  [][]byte                  `json:"mounts_bytes,omitempty"`
}

type snapshotApplicationInfo struct {
	ID     string       `json:"id"`
	AtRest bool         `json:"at_rest"`
	Code   problem.Code `json:"code,omitempty"`
	Reason string       `json:"reason,omitempty"`
}

type snapshotVolumeInfo struct {
	Volume   volume.ID    `json:"volume"`
	Provider string       `json:"provider"`
	State    string       `json:"state"`
	Code     problem.Code `json:"code,omitempty"`
	Reason   string       `json:"reason,omitempty"`
	HeldMS   float64      `json:"held_ms"`
	Cache    *cacheInfo   `json:"cache"`
	Gaps     []gapInfo    `json:"gaps"`
}

type gapInfo struct {
	Path      string       `json:"path"`
	PathBytes []byte       `json:"path_bytes,omitempty"`
	Code      problem.Code `json:"code,omitempty"`
	Reason    string       `json:"reason"`
}

type uncoveredInfo struct {
	Path      string       `json:"path"`
	PathBytes []byte       `json:"path_bytes,omitempty"`
	Type      string       `json:"type"`
	Code      problem.Code `json:"code,omitempty"`
	Reason    string       `json:"reason"`
}

func snapshotInfoOf(k agent.Kept) snapshotInfo {
	i := snapshotInfo{
		ID: k.ID, Taken: k.Taken.UTC(), Paths: append([]string{}, k.Paths...), PathsBytes: job.NotTexts(k.Paths), State: "good",
		Volumes: []snapshotVolumeInfo{}, Uncovered: uncoveredInfos(k.Uncovered), Mounts: append([]string{}, k.Mounts...), MountsBytes: job.NotTexts(k.Mounts),
	}
	i.Applications = []snapshotApplicationInfo{}
	for _, a := range k.Applications {
		i.Applications = append(i.Applications, snapshotApplicationInfo(a))
	}
	if k.Lost() {
		i.State = "lost"
	}
	for _, v := range k.Volumes {
		i.Volumes = append(i.Volumes, snapshotVolumeInfo{
			Volume: v.Volume, Provider: v.Provider, State: stateOf(v.Code), Code: v.Code, Reason: v.Reason,
			HeldMS: float64(v.Held.Microseconds()) / 1000, Cache: cacheInfoOf(v.Cache), Gaps: gapInfos(v.Gaps),
		})
	}
	return i
}

func gapInfos(gaps []snapshot.Gap) []gapInfo {
	infos := []gapInfo{}
	for _, g := range gaps {
		infos = append(infos, gapInfo{g.Path, job.NotText(g.Path), g.Code, g.Reason})
	}
	return infos
}

func uncoveredInfos(all []capture.Uncovered) []uncoveredInfo {
	infos := []uncoveredInfo{}
	for _, u := range all {
		infos = append(infos, uncoveredInfo{u.Path, job.NotText(u.Path), u.Type, u.Code, u.Reason})
	}
	return infos
}

// absolute makes paths mean the same to the agent as to us.
func absolute(paths []string) ([]string, error) {
	var all []string
	for _, path := range paths {
		if path == "" {
			return nil, problem.Newf(problem.Usage, `""`, "is no path")
		}
		abs, err := filepath.Abs(path)
		if err != nil { // the working directory has been removed
			return nil, problem.New(problem.PathMissing, path, err)
		}
		all = append(all, abs)
	}
	return all, nil
}

func runSnapshotCreate(ctx context.Context, e *env, cache *cacheFlags, paths []string) error {
	choice, err := cache.choice(e)
	if err != nil {
		return err
	}
	if paths, err = absolute(paths); err != nil {
		return err
	}
	a := agent.NewControl(agentSocket())
	a.Cache = choice
	k, err := a.Create(ctx, paths)
	if err != nil {
		return err
	}
	i := snapshotInfoOf(k)
	if e.json {
		return e.print(i)
	}
	for _, u := range i.Uncovered {
		fmt.Fprintf(e.stderr, "not covered: %s (%s): %s\n", quote(u.Path), u.Type, u.Reason)
	}
	_, err = fmt.Fprintln(e.stdout, i.ID)
	return err
}

func newSnapshotList(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "list the snapshots that the agent keeps",
		Long:  "Lists the snapshots that the agent keeps, with their state and how full their cache files are.",
		Example: `  stillpoint snapshot list
  stillpoint snapshot list --json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runSnapshotList(c.Context(), e) },
	}
	jsonFlag(c, e)
	return c
}

func runSnapshotList(ctx context.Context, e *env) error {
	all, err := agent.NewControl(agentSocket()).List(ctx)
	if err != nil {
		return err
	}
	infos := []snapshotInfo{}
	for _, k := range all {
		infos = append(infos, snapshotInfoOf(k))
	}
	if e.json {
		return e.print(infos)
	}
	if len(infos) == 0 {
		_, err := fmt.Fprintln(e.stdout, "no snapshots")
		return err
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tTAKEN\tPATHS\tPROVIDER\tSTATE\tCACHE\tVOLUME\tMOUNTED AT")
	for _, i := range infos {
		for _, v := range i.Volumes {
			state := v.State
			if v.Code != "" {
				state += " (" + string(v.Code) + ")"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", i.ID, i.Taken.Local().Format(time.DateTime), quote(strings.Join(i.Paths, " ")),
				v.Provider, state, cacheText(v.Cache), v.Volume, quote(strings.Join(i.Mounts, " ")))
		}
	}
	return w.Flush()
}

func newSnapshotMount(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "mount ID FOLDER",
		Short: "show a snapshot in a folder",
		Long: `Mounts a snapshot on a folder, read-only, under its live paths: a snapshot of
/srv shows in FOLDER/srv. It is unmounted when the snapshot is deleted, and when
the agent ends; ` + "`umount -R FOLDER`" + ` does so earlier. An id may be shortened.`,
		Example: `  stillpoint snapshot mount k3jx /mnt`,
		Args:    between(2, 2, "an id or a folder"),
		RunE:    func(c *cobra.Command, args []string) error { return runSnapshotMount(c.Context(), e, args[0], args[1]) },
	}
}

func runSnapshotMount(ctx context.Context, e *env, id, dir string) error {
	dir, err := volume.Resolve(dir)
	if err != nil {
		return err
	}
	return agent.MountKept(ctx, agentSocket(), id, dir)
}

func newSnapshotDelete(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "delete ID...",
		Short:   "delete snapshots that the agent keeps",
		Long:    "Unmounts and deletes snapshots. An id may be shortened.",
		Example: `  stillpoint snapshot delete k3jx`,
		Args:    atLeast(1, "an id"),
		RunE: func(c *cobra.Command, args []string) error {
			for _, id := range args {
				if err := agent.NewControl(agentSocket()).Delete(c.Context(), id); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
