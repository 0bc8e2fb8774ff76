package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// A disk is a btrfs with its top level mounted.
type disk struct {
	*scratch.Volume
	t *testing.T
}

func newDisk(t *testing.T, options ...scratch.Option) disk {
	t.Helper()
	return disk{scratch.New(t, "btrfs", 256*scratch.MiB, options...), t}
}

func (d disk) in(path string) string { return filepath.Join(d.Dir, path) }

// create makes subvolumes, each with a file "in" that holds its path.
func (d disk) create(paths ...string) {
	d.t.Helper()
	for _, p := range paths {
		must(d.t, os.MkdirAll(filepath.Dir(d.in(p)), 0o755))
		scratch.Run(d.t, "btrfs", "subvolume", "create", d.in(p))
		must(d.t, os.WriteFile(d.in(p+"/in"), []byte(p), 0o644))
	}
}

// keepOld makes a read-only snapshot, as snapper does.
func (d disk) keepOld(what, at string) {
	d.t.Helper()
	scratch.Run(d.t, "btrfs", "subvolume", "snapshot", "-r", d.in(what), d.in(at))
}

func (d disk) remove(path string) {
	d.t.Helper()
	scratch.Run(d.t, "btrfs", "subvolume", "delete", d.in(path))
}

// mounted mounts a subvolume by itself and describes it.
func (d disk) mounted(path string) volume.Volume {
	d.t.Helper()
	return find(d.t, d.Mount(d.t, "subvol="+path))
}

func find(t *testing.T, path string) volume.Volume {
	t.Helper()
	v, _ := scratch.Find(t, path)
	return v
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var sets int

func of(v volume.Volume, paths ...string) snapshot.Target {
	return snapshot.Target{Volume: v, Paths: paths}
}

func prepare(t *testing.T, ts ...snapshot.Target) snapshot.Pending {
	t.Helper()
	sets++
	pending, err := New(host).Prepare(t.Context(), fmt.Sprint("set", sets), ts)
	must(t, err)
	t.Cleanup(func() { must(t, pending.Abort(context.Background())) })
	return pending
}

func commit(t *testing.T, pending snapshot.Pending) []snapshot.Snapshot {
	t.Helper()
	snaps, err := pending.Commit(t.Context())
	must(t, err)
	return snaps
}

// take takes a set and releases it when the test ends.
func take(t *testing.T, ts ...snapshot.Target) []snapshot.Snapshot {
	t.Helper()
	snaps := commit(t, prepare(t, ts...))
	for _, s := range snaps {
		t.Cleanup(func() {
			if err := s.Release(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	return snaps
}

// reads compares the file "in" of each part. Nothing can be added anywhere.
func reads(t *testing.T, s snapshot.Snapshot, want map[string]string) {
	t.Helper()
	if err := s.Err(); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{s.Root(), filepath.Join(s.Root(), s.Parts()[0].Path)} {
		if err := os.Mkdir(dir+"/not there", 0o700); !errors.Is(err, syscall.EROFS) {
			t.Errorf("mkdir in %s: %v", dir, err)
		}
	}
	for path, text := range want {
		b, err := os.ReadFile(filepath.Join(s.Root(), path, "in"))
		if err != nil || string(b) != text {
			t.Errorf("%s/in is %q, %v; want %q", path, b, err, text)
		}
	}
}

func parts(s snapshot.Snapshot) string {
	var paths []string
	for _, p := range s.Parts() {
		paths = append(paths, p.Path)
	}
	return strings.Join(paths, " ")
}

// gaps is "path:code", with "rule" for no code.
func gaps(s snapshot.Snapshot) string {
	var all []string
	for _, g := range s.Gaps() {
		if g.Reason == "" {
			all = append(all, "no reason for "+g.Path)
		}
		code := g.Code
		if code == "" {
			code = "rule"
		}
		all = append(all, g.Path+":"+string(code))
	}
	return strings.Join(all, " ")
}

func shows(t *testing.T, s snapshot.Snapshot, wantParts, wantGaps string) {
	t.Helper()
	if got := parts(s); got != wantParts {
		t.Errorf("parts %q, want %q", got, wantParts)
	}
	if got := gaps(s); got != wantGaps {
		t.Errorf("gaps %q, want %q", got, wantGaps)
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	var n []string
	for _, e := range list {
		n = append(n, e.Name())
	}
	slices.Sort(n)
	return strings.Join(n, " ")
}

func hasCode(t *testing.T, what string, err error, want problem.Code) {
	t.Helper()
	if code := problem.CodeOf(err); code != want {
		t.Errorf("%s: %v, code %q, want %q", what, err, code, want)
	}
}
