package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"stillpoint/internal/agent"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

func newAgent(e *env) *cobra.Command {
	socket, cache := "", cacheFlags{}
	c := &cobra.Command{
		Use:   "agent [PATH...]",
		Short: "stay, watch volumes, and keep snapshots",
		Long: `Runs until SIGTERM or SIGINT. With SIGUSR1, and when it dies, what it watches
is kept for the next agent, which must be started within a minute; what it holds
is lost in any case. It watches the volumes that hold the paths, or all
local ones of a kind that needs it (ext4, XFS), also those that are mounted
later: what is opened for writing from then on needs no care when a snapshot is
taken. Snapshots of these volumes, of a backup or by ` + "`snapshot create`" + `, are
held by the agent.

A snapshot of ext4 and XFS keeps the originals of what changes in a cache file:
in --cache-dir, or on the local volume with most room, or, where there is no
other one, on the volume itself. What a client asks for comes first.

Start it as early as can be, before what writes: the systemd unit in packaging/
does. What happens goes to standard error, a line for each event.`,
		Example: `  stillpoint agent
  stillpoint agent /srv /home --socket /run/backup/agent.sock
  stillpoint agent --cache-dir /var/cache --cache-max 20G`,
		Args: func(*cobra.Command, []string) error { return nil },
		RunE: func(c *cobra.Command, args []string) error { return runAgent(c.Context(), e, socket, &cache, args) },
	}
	c.Flags().StringVar(&socket, "socket", "", "where to listen (default $STILLPOINT_AGENT, or "+agent.Socket+")")
	cache.add(c)
	c.AddCommand(newAgentStatus(e))
	return c
}

func runAgent(ctx context.Context, e *env, socket string, cache *cacheFlags, paths []string) error {
	choice, err := cache.choice(e)
	if err != nil {
		return err
	}
	if socket == "" {
		socket = agentSocket()
	}
	for i, path := range paths {
		abs, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		paths[i] = abs
	}
	if socket, err = filepath.Abs(socket); err != nil {
		return err
	}
	apps, err := applications(e)
	if err != nil {
		return err
	}
	ctx, stop := restartable(ctx)
	defer stop()
	return agent.Run(ctx, agent.Options{
		Socket: socket, Providers: residents(choice), Applications: apps, Host: host, Paths: paths, Version: version(),
		Log:   slog.New(slog.NewTextHandler(e.stderr, nil)),
		Ready: func() { _ = agent.Notify("READY=1") }, // who started it will notice
	})
}

// restartable is over with ErrRestart when SIGUSR1 comes.
func restartable(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	go func() {
		select {
		case <-asked:
			cancel(agent.ErrRestart)
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(asked)
		cancel(nil)
	}
}

func newAgentStatus(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "show what the agent watches and holds",
		Long: `Shows the volumes that the agent watches, the snapshots that it holds, how full
their cache files are, and which processes have files in use whose changes would
not be noticed.`,
		Example: `  stillpoint agent status
  stillpoint agent status --json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runAgentStatus(c.Context(), e) },
	}
	jsonFlag(c, e)
	return c
}

// agentInfo is `agent status --json`.
type agentInfo struct {
	PID          int             `json:"pid"`
	Version      string          `json:"version"`
	Started      time.Time       `json:"started"`
	Holder       int             `json:"holder,omitempty"`
	MemoryLocked bool            `json:"memory_locked"`
	MemoryReason string          `json:"memory_reason,omitempty"`
	Volumes      []watchedInfo   `json:"volumes"`
	Snapshots    []agentHeldInfo `json:"snapshots"`
}

type watchedInfo struct {
	Volume      volume.ID    `json:"volume"`
	Type        string       `json:"type"`
	Mounts      []string     `json:"mounts"`
	MountsBytes [][]byte     `json:"mounts_bytes,omitempty"`
	Provider    string       `json:"provider"`
	State       string       `json:"state"`
	Watched     bool         `json:"watched"`
	Since       time.Time    `json:"since"`
	Inherited   bool         `json:"inherited"`
	Events      int64        `json:"events"`
	PerSecond   float64      `json:"events_per_second"`
	Unseen      []unseenInfo `json:"unseen"`
	Code        problem.Code `json:"code,omitempty"`
	Reason      string       `json:"reason,omitempty"`
}

// unseenInfo is what can change unnoticed, by process, in `agent status` and
// `providers`.
type unseenInfo struct {
	PID        int      `json:"pid"`
	Program    string   `json:"program"`
	Kind       string   `json:"kind"`
	Files      int      `json:"files"`
	Paths      []string `json:"paths"`
	PathsBytes [][]byte `json:"paths_bytes,omitempty"`
	Text       string   `json:"text"`
}

type agentHeldInfo struct {
	ID       string       `json:"id"`
	Volume   volume.ID    `json:"volume"`
	Provider string       `json:"provider"`
	Taken    time.Time    `json:"taken"`
	Snapshot string       `json:"snapshot,omitempty"`
	Client   int          `json:"client,omitempty"`
	State    string       `json:"state"`
	Code     problem.Code `json:"code,omitempty"`
	Reason   string       `json:"reason,omitempty"`
	Cache    *cacheInfo   `json:"cache"`
}

type cacheInfo struct {
	Dir      string `json:"dir"`
	DirBytes []byte `json:"dir_bytes,omitempty"`
	Used     int64  `json:"used"`
	Maximum  int64  `json:"maximum"`
}

func agentInfoOf(s agent.Status) agentInfo {
	i := agentInfo{PID: s.PID, Version: s.Version, Started: s.Started.UTC(), Volumes: []watchedInfo{}, Snapshots: []agentHeldInfo{}}
	i.MemoryReason = s.Unlocked
	if s.Holder != nil {
		i.Holder, i.MemoryReason = s.Holder.PID, cmp.Or(i.MemoryReason, s.Holder.Unlocked)
	}
	i.MemoryLocked = i.MemoryReason == ""
	for _, v := range s.Volumes {
		state := "idle"
		if v.Armed {
			state = "armed"
		}
		i.Volumes = append(i.Volumes, watchedInfo{
			Volume: v.Volume, Type: v.Type, Mounts: append([]string{}, v.Points...), MountsBytes: job.NotTexts(v.Points),
			Provider: v.Provider, State: state, Watched: v.Watched, Since: v.Since.UTC(), Inherited: v.Inherited, Events: v.Events, PerSecond: v.PerSecond,
			Unseen: unseenInfos(v.Unseen), Code: v.Code, Reason: v.Reason,
		})
	}
	for _, h := range s.Snapshots {
		i.Snapshots = append(i.Snapshots, agentHeldInfo{
			ID: h.ID, Volume: h.Volume, Provider: h.Provider, Taken: h.Taken.UTC(), Snapshot: h.Kept, Client: h.Client,
			State: stateOf(h.Code), Code: h.Code, Reason: h.Reason, Cache: cacheInfoOf(h.Cache),
		})
	}
	return i
}

func stateOf(code problem.Code) string {
	if code != "" {
		return "lost"
	}
	return "good"
}

func cacheInfoOf(c *snapshot.Cache) *cacheInfo {
	if c == nil {
		return nil
	}
	return &cacheInfo{c.Dir, job.NotText(c.Dir), c.Used, c.Maximum}
}

func unseenInfos(all []snapshot.Unseen) []unseenInfo {
	infos := []unseenInfo{}
	for _, u := range all {
		infos = append(infos, unseenInfo{u.PID, u.Program, u.Kind, u.Files, append([]string{}, u.Paths...), job.NotTexts(u.Paths), u.Advice})
	}
	return infos
}

func runAgentStatus(ctx context.Context, e *env) error {
	s, err := agent.NewControl(agentSocket()).Status(ctx)
	if err != nil {
		return err
	}
	i := agentInfoOf(s)
	if e.json {
		return e.print(i)
	}
	fmt.Fprintf(e.stdout, "agent %s, process %d, since %s\n", i.Version, i.PID, i.Started.Local().Format(time.DateTime))
	e.printHolder(i)
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nVOLUME\tTYPE\tMOUNTED AT\tSTATE\tEVENTS/S\tWATCHED SINCE")
	for _, v := range i.Volumes {
		since := v.Since.Local().Format(time.DateTime)
		if v.Inherited {
			since += " (taken over from an earlier agent)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.1f\t%s\n", v.Volume, v.Type, quote(strings.Join(v.Mounts, ", ")), v.State, v.PerSecond, since)
	}
	if len(i.Volumes) == 0 {
		fmt.Fprintln(w, "none")
	}
	fmt.Fprintln(w, "\nSNAPSHOT\tTAKEN\tPROVIDER\tSTATE\tFOR\tCACHE")
	for _, h := range i.Snapshots {
		owner := fmt.Sprintf("process %d", h.Client)
		if h.Snapshot != "" {
			owner = "kept"
		}
		state := h.State
		if h.Code != "" {
			state += " (" + string(h.Code) + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", h.ID, h.Taken.Local().Format(time.DateTime), h.Provider, state, owner, cacheText(h.Cache))
	}
	if len(i.Snapshots) == 0 {
		fmt.Fprintln(w, "none")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, v := range i.Volumes {
		e.printUnseen(strings.Join(v.Mounts, ", "), v.Unseen)
		if v.Reason != "" {
			fmt.Fprintf(e.stdout, "\nWhat is in use on %s is not known: %s\n", quote(strings.Join(v.Mounts, ", ")), v.Reason)
		}
	}
	return nil
}

// printHolder says what becomes of all this when the agent ends.
func (e *env) printHolder(i agentInfo) {
	if i.Holder == 0 {
		fmt.Fprintln(e.stdout, "no holder: what is watched ends with the agent")
	} else {
		fmt.Fprintf(e.stdout, "holder: process %d, keeps what is watched for the next agent\n", i.Holder)
	}
	if !i.MemoryLocked {
		fmt.Fprintf(e.stdout, "memory is not locked, so a shortage of it can make others wait: %s\n", i.MemoryReason)
	}
}

// printUnseen says what to do about what is in use.
func (e *env) printUnseen(where string, all []unseenInfo) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(e.stdout, "\nIn use on %s so that changes make no event; a snapshot copies such files at its instant:\n", quote(where))
	for _, u := range all {
		fmt.Fprintf(e.stdout, "  %s\n", quote(u.Text))
	}
}

func cacheText(c *cacheInfo) string {
	if c == nil {
		return "-"
	}
	return fmt.Sprintf("%s of %s in %s", bytesText(c.Used), bytesText(c.Maximum), quote(c.Dir))
}
