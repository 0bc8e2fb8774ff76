package capture

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/sys/mount"
	"stillpoint/internal/volume"
)

// A rig is a volume with another one and a memory file system mounted in it.
type rig struct {
	t          *testing.T
	dir, inner string
	store      string
	step       func(string) error // may fail a step of the provider
	fake       *fake.Provider
	refuse     string // a mount point whose volume the provider does not take
}

func newRig(t *testing.T) *rig {
	outer, inner := scratch.New(t, "ext4", 64*scratch.MiB), scratch.New(t, "ext4", 64*scratch.MiB)
	r := &rig{t: t, dir: outer.Dir, store: t.TempDir()}
	r.inner = filepath.Join(r.dir, "a/inner")
	r.must(os.MkdirAll(r.inner, 0o755))
	r.must(os.MkdirAll(r.dir+"/a/memory", 0o755))
	scratch.Run(t, "mount", inner.Devices[0], r.inner)
	t.Cleanup(func() { scratch.Run(t, "umount", r.inner) })
	scratch.Run(t, "mount", "-t", "tmpfs", "none", r.dir+"/a/memory")
	t.Cleanup(func() { scratch.Run(t, "umount", r.dir+"/a/memory") })
	for _, name := range []string{"file", "a/file", "a/inner/file", "a/memory/file"} {
		r.must(os.WriteFile(filepath.Join(r.dir, name), []byte("old"), 0o644))
	}
	r.fake = fake.New(r.store, fake.Options{
		Accept: func(v volume.Volume) error {
			for _, m := range v.Mounts {
				if (m.Point == r.dir || m.Point == r.inner) && m.Point != r.refuse {
					return nil
				}
			}
			return problem.Newf(problem.NoProvider, string(v.ID), "is not of this test")
		},
		Step: func(_ context.Context, name string) error {
			if r.step != nil {
				return r.step(name)
			}
			return nil
		},
	})
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) plan(paths ...string) (*Plan, error) {
	r.t.Helper()
	table, err := volume.Read(r.t.Context(), volume.Host())
	r.must(err)
	return Make(r.t.Context(), table, []snapshot.Provider{r.fake}, paths)
}

func TestPlan(t *testing.T) {
	r := newRig(t)
	places := func(p *Plan) (all []string) {
		for _, pl := range p.Places {
			all = append(all, strings.TrimPrefix(pl.Path, r.dir)+" "+pl.Rel)
		}
		return all
	}
	for _, tt := range []struct {
		paths, places, uncovered []string
		refuse                   string
		code                     problem.Code
	}{
		{paths: []string{"/file"}, places: []string{"/file file"}},
		{paths: []string{"/a/inner/file"}, places: []string{"/a/inner/file file"}},
		{paths: []string{""}, places: []string{" .", "/a/inner .", "/a/memory "}, uncovered: []string{"/a/memory"}},
		{paths: []string{"/a", "/file", "/a/file", "/a/inner", "/file"}, places: []string{"/a a", "/a/inner .", "/a/memory ", "/file file"}, uncovered: []string{"/a/memory"}},
		{paths: []string{"/a"}, refuse: r.inner, places: []string{"/a a", "/a/inner ", "/a/memory "}, uncovered: []string{"/a/inner", "/a/memory"}},
		// What was asked for by name is not left out.
		{paths: []string{"/a", "/a/inner/file"}, refuse: r.inner, code: problem.NoProvider},
		{paths: []string{"/a", "/a/memory"}, code: problem.NoProvider},
		{paths: []string{"/a/memory/file"}, code: problem.NoProvider},
		{paths: []string{"/nosuch"}, code: problem.PathMissing},
	} {
		r.refuse = tt.refuse
		var paths, uncovered []string
		for _, p := range tt.paths {
			paths = append(paths, r.dir+p)
		}
		p, err := r.plan(paths...)
		if tt.code != "" {
			if !problem.Is(err, tt.code) {
				t.Errorf("%q: %v, want %s", tt.paths, err, tt.code)
			}
			continue
		}
		r.must(err)
		for _, u := range p.Uncovered {
			uncovered = append(uncovered, strings.TrimPrefix(u.Path, r.dir))
		}
		if !slices.Equal(places(p), tt.places) || !slices.Equal(uncovered, tt.uncovered) {
			t.Errorf("%q: %q, uncovered %q; want %q, %q", tt.paths, places(p), uncovered, tt.places, tt.uncovered)
		}
	}
}

// A program in a namespace of its own sees the snapshots, and live what they do
// not cover.
func TestShow(t *testing.T) {
	r := newRig(t)
	p, err := r.plan(r.dir)
	r.must(err)
	s, err := Take(t.Context(), p, quiesce.Settings{}, func(quiesce.Event) {})
	r.must(err)
	names := []string{"file", "a/file", "a/inner/file", "a/memory/file"}
	for _, name := range names {
		r.must(os.WriteFile(filepath.Join(r.dir, name), []byte("new"), 0o644))
	}
	private, err := mount.NewPrivate()
	r.must(err)
	r.must(s.Show(private))
	got := map[string]string{}
	r.must(private.Do(func() error {
		var errs []error
		for _, name := range names {
			b, err := os.ReadFile(filepath.Join(r.dir, name))
			got[name] = string(b)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}))
	private.Close()
	if want := map[string]string{"file": "old", "a/file": "old", "a/inner/file": "old", "a/memory/file": "new"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if s.Taken().IsZero() || s.Err() != nil {
		t.Errorf("taken %v: %v", s.Taken(), s.Err())
	}
	r.fake.Lose(s.Snapshots[1].Volume(), errors.New("gone"))
	if err := s.Err(); !problem.Is(err, problem.SnapshotLost) {
		t.Errorf("one is lost: %v", err)
	}
	if s.Yielded() {
		t.Error("lost is not given up")
	}
	told := make(chan error, 2)
	s.WhenYielded(t.Context().Done(), func(why error) { told <- why })
	r.fake.GiveUp(s.Snapshots[0].Volume(), problem.Newf(problem.PoolFull, "", "planned"))
	if why := <-told; !problem.Is(why, problem.PoolFull) || !s.Yielded() {
		t.Errorf("one is given up: %v, %v", why, s.Yielded())
	}
	r.fake.GiveUp(s.Snapshots[1].Volume(), errors.New("too"))
	r.must(s.Release(t.Context()))
	if len(told) > 0 {
		t.Error("told twice")
	}
	if held := r.fake.Held(); len(held) > 0 {
		t.Errorf("left: %q", held)
	}
}

// Where a snapshot could not be shown, that is what is said, and not that a path is missing.
func TestUnshown(t *testing.T) {
	r := newRig(t)
	p, err := r.plan(r.dir)
	r.must(err)
	s, err := Take(t.Context(), p, quiesce.Settings{}, func(quiesce.Event) {})
	r.must(err)
	defer func() { r.must(s.Release(t.Context())) }()
	r.must(os.RemoveAll(s.Snapshots[0].Root()))
	r.fake.Lose(s.Snapshots[0].Volume(), errors.New("planned"))
	private, err := mount.NewPrivate()
	r.must(err)
	defer private.Close()
	if err := s.Show(private); !problem.Is(err, problem.SnapshotLost) || !strings.Contains(err.Error(), "planned") {
		t.Errorf("%v", err)
	}
}

// Whatever step fails, nothing stays, and the error has a code.
func TestTakeFails(t *testing.T) {
	r := newRig(t)
	for _, at := range []string{"prepare", "hold", "commit", "resume"} {
		p, err := r.plan(r.dir)
		r.must(err)
		failed := 0
		r.step = func(name string) error {
			if name == at && failed < 2 { // resume is tried twice
				failed++
				return errors.New("planted")
			}
			return nil
		}
		s, err := Take(t.Context(), p, quiesce.Settings{}, func(quiesce.Event) {})
		r.step = nil
		if err == nil || problem.CodeOf(err) == problem.Uncatalogued || !strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v, %v", at, s, err)
		}
		held := slices.DeleteFunc(r.fake.Held(), func(what string) bool { return at == "resume" && strings.HasPrefix(what, "hold ") })
		if len(held) > 0 {
			t.Errorf("%s: left %q", at, held)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	p, err := r.plan(r.dir)
	r.must(err)
	cancel()
	if _, err := Take(ctx, p, quiesce.Settings{}, func(quiesce.Event) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
