package cow

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow/hot"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/volume"
)

// alone is a host on which nothing is mounted but what is mounted at these
// places, and a root that is read-only.
func alone(tb testing.TB, points ...string) func(context.Context) (*volume.Table, error) {
	tb.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		tb.Fatal(err)
	}
	var kept strings.Builder
	for line := range strings.Lines(string(b)) {
		switch f := strings.Fields(line); {
		case f[4] == "/":
			f[5] = "ro"
			kept.WriteString(strings.Join(f, " ") + "\n")
		case slices.Contains(points, f[4]):
			kept.WriteString(line)
		}
	}
	roots := volume.Host()
	roots.Proc = tb.TempDir()
	for name, text := range map[string]string{"self/mountinfo": kept.String(), "swaps": "Filename\tType\tSize\tUsed\tPriority\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(roots.Proc, name)), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(roots.Proc, name), []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	return func(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, roots) }
}

// eachAlone is each on a host that has this one volume.
func eachAlone(t *testing.T, run func(t *testing.T, r *rig)) {
	each(t, func(t *testing.T, r *rig) {
		r.p = New(alone(t, r.dir), r.p.o)
		run(t, r)
	})
}

// events is how many the filter of the volume has seen.
func (r *rig) events() int64 {
	r.Helper()
	for _, w := range r.p.Watched() {
		if w.Volume == r.target.Volume.ID {
			return w.Events
		}
	}
	r.Fatal("the volume is not watched")
	return 0
}

// The cache file lies on the volume itself: originals are kept, the file is in
// no snapshot, makes no event, and is not taken for one that can change unseen.
func TestAlone(t *testing.T) {
	eachAlone(t, func(t *testing.T, r *rig) {
		r.must(r.p.Check(t.Context(), r.target.Volume))
		const n = 300
		r.must(os.WriteFile(r.path("file"), bytes.Repeat(block('A'), n), 0o644))
		early, err := os.OpenFile(r.path("file"), os.O_RDWR, 0) // hot: copied under the freeze
		r.must(err)
		defer early.Close()
		r.must(os.WriteFile(r.path("other"), bytes.Repeat(block('B'), n), 0o644))
		var f *os.File
		s := r.take(func() {
			f, err = os.OpenFile(r.path("other"), os.O_RDWR, 0)
			r.must(err)
			t.Cleanup(func() { f.Close() })
		})
		c, ok := s.Cache()
		if !ok || c.Dir != r.dir || c.Used < n*4096 || c.Maximum < 50<<20 {
			t.Errorf("the cache file: %+v", c)
		}
		before := r.events()
		_, err = early.WriteAt(block('x'), 4096)
		r.must(err)
		for i := range int64(n) {
			_, err := f.WriteAt(block('y'), i*4096)
			r.must(err)
		}
		r.must(s.cache.Flush(t.Context()))
		// The writes are events, until what is often written is saved whole.
		if events := r.events() - before; events < 1 || events > n {
			t.Errorf("%d events of %d writes: the cache file makes some, too", events, n)
		}
		if got := r.read(s, "file"); !bytes.Equal(got, bytes.Repeat(block('A'), n)) {
			t.Error("the file that was open before is not as it was")
		}
		if got := r.read(s, "other"); !bytes.Equal(got, bytes.Repeat(block('B'), n)) {
			t.Error("the file that was opened later is not as it was")
		}
		entries, err := os.ReadDir(s.Root())
		r.must(err)
		for _, e := range entries {
			if !slices.Contains([]string{"file", "other", "lost+found"}, e.Name()) {
				t.Errorf("the snapshot has %q", e.Name())
			}
		}
		unseen, err := r.p.Unseen(t.Context(), r.target.Volume)
		r.must(err)
		for _, u := range unseen { // the test itself has the first file open
			if u.PID == os.Getpid() && (len(u.Paths) != 1 || u.Paths[0] != r.path("file")) {
				t.Errorf("seen as unshielded: %+v", u)
			}
		}
		r.must(s.look(t.Context()))
		if slices.ContainsFunc(slices.Concat(s.hot, s.written), func(u hot.Use) bool { return u.Inode == s.cache.number }) {
			t.Error("the cache file is found as one that may change")
		}
		r.must(s.Err())
	})
}

// The blocks of the cache file are free after the release.
func TestAloneFreesBlocks(t *testing.T) {
	eachAlone(t, func(t *testing.T, r *rig) {
		free := func() uint64 {
			v, _ := scratch.Find(t, r.dir)
			return v.Free
		}
		r.must(os.WriteFile(r.path("file"), bytes.Repeat(block('A'), 10000), 0o644))
		f, err := os.OpenFile(r.path("file"), os.O_RDWR, 0)
		r.must(err)
		defer f.Close()
		r.must(f.Sync())
		before := free()
		s := r.take(nil)
		if took := int64(before - free()); took < 38<<20 {
			t.Errorf("the copy of the hot file takes %d bytes", took)
		}
		r.must(s.Release(t.Context()))
		waitFor(t, func() bool { return free() >= before-1<<20 })
	})
}

// What has to be saved under the freeze and has no room in memory fails the set
// before anybody waits for a write to a frozen volume.
func TestAloneNoRoom(t *testing.T) {
	eachAlone(t, func(t *testing.T, r *rig) {
		r.p.o.Cache.Memory = 2 << 20
		r.must(os.WriteFile(r.path("file"), bytes.Repeat(block('A'), 4<<20/4096), 0o644))
		f, err := os.OpenFile(r.path("file"), os.O_RDWR, 0)
		r.must(err)
		defer f.Close()
		if _, err := r.try(nil); problem.CodeOf(err) != problem.CacheFull || !strings.Contains(err.Error(), "stands still") {
			t.Errorf("a set without room: %v", err)
		}
		_, err = f.WriteAt([]byte("after"), 0) // it is thawed
		r.must(err)
	})
}

// The provider passes the checks with its cache file on the volume itself.
func TestSuiteAlone(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			scratch.NeedRoot(t)
			h := suiteHost(fs)
			h.New = func(testing.TB) snapshot.Provider { return &onItself{New(host, Options{})} }
			for _, name := range []string{
				"state", "instant", "two-readings", "later-write", "later-truncate", "later-direct", "later-tmpfile", "later-unlink",
				"two-sets", "abort", "abort-during-commit", "leaves-nothing", "release-one-by-one", "open-reader",
			} {
				t.Run(name, func(t *testing.T) { snapshottest.RunCheck(t, h, name) })
			}
		})
	}
}

// onItself names the first volume of each set for the cache files.
type onItself struct{ *Provider }

func (p *onItself) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	w := snapshot.Provider(p.Provider)
	if len(ts) > 0 && ts[0].Volume.Kind == volume.Local && ts[0].Volume.FSType != "vfat" {
		var err error
		if w, err = p.WithCache(snapshot.CacheChoice{Dir: ts[0].Volume.Mounts[0].Point}); err != nil {
			return nil, err
		}
	}
	return w.Prepare(ctx, id, ts)
}
