package backup

import (
	"cmp"
	"context"
	"path"
	"slices"

	"stillpoint/internal/job"
	"stillpoint/internal/openfile"
	"stillpoint/internal/tree"
	"stillpoint/internal/volume"
)

// provider is the one that was chosen for a live path: the longest of those that
// the path lies at or below decides.
func (o *Options) provider(live string) string {
	name, longest := cmp.Or(o.Provider, Auto), ""
	for at, of := range o.ProviderOf {
		if at = path.Clean(at); within(at, live) && len(at) > len(longest) {
			name, longest = of, at
		}
	}
	return name
}

// watchFiles prepares for files that are open for writing while they are read
// live, if there may be some and a treatment of them was chosen.
func (b *backing) watchFiles(ctx context.Context) (err error) {
	if b.o.OpenFiles.Way == "" || !slices.ContainsFunc(b.plan.volumes, func(v planned) bool { return v.provider == nil }) {
		return nil
	}
	b.watch, err = openfile.New(ctx, b.o.OpenFiles)
	return err
}

func (b *backing) unwatch() {
	if b.watch != nil {
		b.watch.Close()
	}
}

// opened is repository.StoreOptions.Opened. What lies in a snapshot is open for
// writing to nobody.
func (b *backing) opened(ctx context.Context, vol string, c *tree.Content) (func() error, error) {
	if c.Descriptor() < 0 || b.inSnapshot(volume.ID(vol)) {
		return func() error { return nil }, nil
	}
	return b.watch.Opened(ctx, c.Descriptor(), func(text string) {
		b.event(job.Event{Step: job.StepStore, Path: c.Path(), Text: text})
	})
}

func (b *backing) inSnapshot(id volume.ID) bool {
	for of, s := range b.cap.snaps {
		if of == id {
			return true
		}
		for _, p := range s.Parts() {
			if p.Volume == id {
				return true
			}
		}
	}
	return false
}
