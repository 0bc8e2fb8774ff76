//go:build bench

package sets_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/capture"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/btrfs"
	"stillpoint/internal/snapshot/cow"
	"stillpoint/internal/sys/freeze"
	"stillpoint/internal/volume"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/sqlite"
)

// A rig is a set of volumes that are watched, with a thousand small files each,
// and a database on the first one.
type rig struct {
	*testing.T
	kinds     []string
	dirs      []string
	providers []snapshot.Provider
	settings  quiesce.Settings
}

func newRig(t *testing.T, kinds []string) *rig {
	plain := cow.New(host, cow.Options{})
	r := &rig{T: t, kinds: kinds, providers: []snapshot.Provider{btrfs.New(host), plain}}
	r.settings.Writers = []writer.Writer{sqlite.New(sqlite.Options{})}
	for _, fs := range kinds {
		dir := scratch.New(t, fs, 1*scratch.GiB).Dir
		r.dirs = append(r.dirs, dir)
		for i := range 1000 {
			path := filepath.Join(dir, fmt.Sprint(i/100), fmt.Sprint(i%100))
			r.must(errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, make([]byte, 4096), 0o644)))
		}
		if fs == "btrfs" {
			continue
		}
		on, _ := scratch.Find(t, dir)
		r.must(plain.Watch(t.Context(), on))
		t.Cleanup(func() { _ = plain.Unwatch(on.ID) })
	}
	return r
}

func host(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// holds takes so many snapshots of the set while a program writes to all of it,
// and freezes the same volumes without one, in turn.
func holds(r *rig, captures int, found *table) {
	of := row{set: strings.Join(r.kinds, ", "), captures: captures}
	end := r.load()
	for i := range captures {
		steps := []func(){
			func() { r.capture(&of) },
			func() { of.synced = append(of.synced, r.freeze(true)) },
			func() { of.alone = append(of.alone, r.freeze(false)) },
		}
		for k := range steps {
			steps[(i+k)%len(steps)]()
		}
	}
	of.rate = end()
	fmt.Fprintf(os.Stderr, "%+v\n", of)
	*found = append(*found, of)
}

// capture takes one set of snapshots, and deletes it.
func (r *rig) capture(of *row) {
	r.Helper()
	ctx := context.Background()
	t, err := host(ctx)
	r.must(err)
	p, err := capture.Make(ctx, t, r.providers, r.dirs)
	r.must(err)
	s, err := capture.Take(ctx, p, r.settings, func(quiesce.Event) {})
	if err != nil {
		of.failed++
		fmt.Fprintf(os.Stderr, "not to be had: %s: %v\n", problem.CodeOf(err), err)
		return
	}
	var longest time.Duration
	for _, shot := range s.Snapshots {
		for _, part := range shot.Parts() {
			longest = max(longest, part.Held)
		}
	}
	of.hold = append(of.hold, longest)
	for _, app := range s.Applications.All {
		if app.AtRest() {
			of.rest = append(of.rest, app.Rested)
		}
	}
	if !s.OneInstant {
		r.Errorf("the set is of several instants")
	}
	r.must(s.Release(ctx))
}

// freeze freezes all volumes and thaws them, and returns for how long the first
// one was frozen. Before, what is dirty may be written.
func (r *rig) freeze(sync bool) time.Duration {
	r.Helper()
	var all []*os.File
	for _, dir := range r.dirs {
		f, err := os.Open(dir)
		r.must(err)
		defer f.Close()
		all = append(all, f)
		if sync {
			r.must(freeze.Sync(f))
		}
	}
	began := time.Now()
	var errs []error
	frozen := 0
	for _, f := range all {
		err := freeze.Freeze(f)
		errs = append(errs, err)
		if err != nil {
			break
		}
		frozen++
	}
	for _, f := range all[:frozen] {
		errs = append(errs, freeze.Thaw(f))
	}
	took := time.Since(began)
	r.must(errors.Join(errs...))
	return took
}
