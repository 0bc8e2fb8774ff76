package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// cacheFlags say where cache files go and how large they may become.
type cacheFlags struct{ dir, maximum string }

// The variables that stand for them.
const (
	cacheDirVariable = "STILLPOINT_CACHE_DIR"
	cacheMaxVariable = "STILLPOINT_CACHE_MAX"
)

func (f *cacheFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.dir, "cache-dir", "", "folder for the cache files of cow, which have no name there (default $"+cacheDirVariable+", or the volume with most room)")
	c.Flags().StringVar(&f.maximum, "cache-max", "", "how large each may become, or what --provider lvm takes of a volume group: bytes, 500M, 20G, or a share of the free space, 25% (default $"+cacheMaxVariable+", or 30% of what is used on the volume, all of it up to 1G)")
}

// choice looks at what was given.
func (f *cacheFlags) choice(e *env) (snapshot.CacheChoice, error) {
	none := snapshot.CacheChoice{}
	dir, maximum := cmp.Or(f.dir, e.getenv(cacheDirVariable)), cmp.Or(f.maximum, e.getenv(cacheMaxVariable))
	if maximum != "" {
		size, err := cachefile.ParseSize(maximum)
		if err != nil {
			return none, problem.Newf(problem.Usage, nameOf("--cache-max", f.maximum, cacheMaxVariable), "%v; write 500M, 20G or 25%%", err)
		}
		if n, ok := size.Fixed(); ok && n < cachefile.Least {
			return none, problem.Newf(problem.Usage, nameOf("--cache-max", f.maximum, cacheMaxVariable), "%q is less than a cache file needs; write %dM or more", maximum, cachefile.Least>>20)
		}
	}
	if dir != "" {
		name := nameOf("--cache-dir", f.dir, cacheDirVariable)
		abs, err := filepath.Abs(dir)
		if err != nil {
			return none, err
		}
		dir = abs
		switch st, err := os.Stat(dir); {
		case err != nil:
			return none, problem.Newf(problem.Usage, name, "%v; write a folder that is there, such as /var/cache", err)
		case !st.IsDir():
			return none, problem.Newf(problem.Usage, name, "%s is no folder; write one, such as /var/cache", dir)
		}
	}
	return snapshot.CacheChoice{Dir: dir, Maximum: maximum}, nil
}

// nameOf is what people gave it by.
func nameOf(flag, given, variable string) string {
	if given != "" {
		return flag
	}
	return variable
}

// placeInfo is one place for a cache file in `providers --json`.
type placeInfo struct {
	Dir      string    `json:"dir"`
	DirBytes []byte    `json:"dir_bytes,omitempty"`
	Volume   volume.ID `json:"volume"`
	Chosen   bool      `json:"chosen"`
	Maximum  int64     `json:"maximum,omitempty"` // where it is chosen
	Reason   string    `json:"reason"`
}

// addPlaces asks a provider that has cache files where that of a volume would
// go. Why there is no place at all is the reason why it cannot take the volume.
func (i *candidateInfo) addPlaces(ctx context.Context, v volume.Volume, choice snapshot.CacheChoice) {
	for _, p := range residents(choice) {
		c, ok := p.(snapshot.CacheChooser)
		if !ok || p.Name() != i.Provider {
			continue
		}
		if !i.Able && i.Code != problem.CacheNowhere {
			continue
		}
		places, _ := c.CachePlaces(ctx, v)
		for _, p := range places {
			i.CachePlaces = append(i.CachePlaces, placeInfo{p.Dir, job.NotText(p.Dir), p.Volume, p.Chosen, p.Maximum, p.Reason})
		}
	}
}

// printPlaces says where the cache file would go, and why not elsewhere: for who is
// chosen, and for who is not because there is no place.
func (e *env) printPlaces(i candidateInfo) {
	if len(i.CachePlaces) == 0 || i.Able && !i.Chosen {
		return
	}
	by := ""
	if !i.Chosen {
		by = ", by " + i.Provider
	}
	fmt.Fprintf(e.stdout, "\nThe cache file for %s%s:\n", quote(i.Mount), by)
	for _, p := range i.CachePlaces {
		size := ""
		if p.Chosen {
			size = "chosen, at most " + bytesText(p.Maximum) + ": "
		}
		fmt.Fprintf(e.stdout, "  %s: %s%s\n", quote(p.Dir), size, quote(p.Reason))
	}
}
