package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"stillpoint/internal/backup"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

func newProviders(e *env) *cobra.Command {
	var cache cacheFlags
	c := &cobra.Command{
		Use:   "providers [PATH]",
		Short: "show which snapshot providers can take a volume, and why or why not",
		Long: `Shows, for the volume that holds PATH and those mounted below it, or for all
volumes of this host, what each snapshot provider says of it, and which one
` + "`backup`" + ` would choose. With PATH it also shows what is in use now so that
changes make no event, by process, and what to do about it; a snapshot by cow
copies such files at its instant, up to a limit. And it shows where the cache
file of a snapshot by dm or cow would go, and why not elsewhere. A backup of
all that is mounted below PATH may need another choice than one of each volume;
then the reasons say so.`,
		Example: `  stillpoint providers /srv
  stillpoint providers /srv --cache-dir /var/cache
  stillpoint providers --json`,
		Args: between(0, 1, ""),
		RunE: func(c *cobra.Command, args []string) error { return runProviders(c.Context(), e, &cache, args) },
	}
	cache.add(c)
	jsonFlag(c, e)
	return c
}

// candidateInfo is one provider for one volume in `providers --json`.
type candidateInfo struct {
	Volume     volume.ID    `json:"volume"`
	Type       string       `json:"type"`
	Mount      string       `json:"mount"` // the first place where it shows
	MountBytes []byte       `json:"mount_bytes,omitempty"`
	Provider   string       `json:"provider"`
	Able       bool         `json:"able"`
	Chosen     bool         `json:"chosen"`
	Code       problem.Code `json:"code,omitempty"`
	Reason     string       `json:"reason"`

	// With PATH, of a provider that has cache files.
	CachePlaces []placeInfo `json:"cache_places,omitempty"`

	// With PATH, of a provider that is chosen and must know.
	Unseen       []unseenInfo `json:"unseen,omitempty"`
	UnseenCode   problem.Code `json:"unseen_code,omitempty"`
	UnseenReason string       `json:"unseen_reason,omitempty"`
}

func runProviders(ctx context.Context, e *env, cache *cacheFlags, args []string) error {
	choice, err := cache.choice(e)
	if err != nil {
		return err
	}
	en := backup.Engine{Providers: providers(choice)} // no job, so no folder for its log
	path := ""
	if len(args) == 1 {
		path = args[0]
	}
	cs, err := en.Candidates(ctx, path)
	if err != nil {
		return err
	}
	infos := []candidateInfo{}
	for _, c := range cs {
		i := candidateInfoOf(c)
		if path != "" && c.Chosen {
			i.addUnseen(ctx, c.Volume)
		}
		if path != "" {
			i.addPlaces(ctx, c.Volume, choice)
		}
		infos = append(infos, i)
	}
	if e.json {
		return e.print(infos)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MOUNTED AT\tTYPE\tPROVIDER\tABLE\tREASON")
	for _, i := range infos {
		able := "no"
		if i.Able {
			able = "yes"
		}
		if i.Chosen {
			able = "chosen"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", quote(i.Mount), i.Type, i.Provider, able, quote(strings.ReplaceAll(i.Reason, "\n", "; ")))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, i := range infos {
		e.printPlaces(i)
		e.printUnseen(i.Mount, i.Unseen)
		if i.UnseenReason != "" {
			fmt.Fprintf(e.stdout, "\nWhat is in use on %s is not known: %s\n", quote(i.Mount), i.UnseenReason)
		}
	}
	return nil
}

// addUnseen asks the provider what it would have to take care of.
func (i *candidateInfo) addUnseen(ctx context.Context, v volume.Volume) {
	for _, p := range residents(snapshot.CacheChoice{}) {
		w, ok := p.(snapshot.Watcher)
		if !ok || p.Name() != i.Provider {
			continue
		}
		unseen, err := w.Unseen(ctx, v)
		i.Unseen = unseenInfos(unseen)
		if err != nil {
			i.UnseenCode, i.UnseenReason = problem.CodeOf(err), problem.Text(err)
		}
	}
}

func candidateInfoOf(c backup.Candidate) candidateInfo {
	i := candidateInfo{
		Volume: c.Volume.ID, Type: c.Volume.FSType, Mount: c.Volume.Mounts[0].Point, MountBytes: job.NotText(c.Volume.Mounts[0].Point), Provider: c.Provider,
		Able: c.Err == nil, Chosen: c.Chosen, Reason: c.Reason,
	}
	if c.Err != nil {
		i.Code = problem.CodeOf(c.Err)
	}
	return i
}
