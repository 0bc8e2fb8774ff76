package cow

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
)

// cachedOn is a rig whose cache file lies on another scratch volume.
func (r *rig) cachedOn(dir string) *rig {
	r.Helper()
	w, err := r.p.WithCache(snapshot.CacheChoice{Dir: dir})
	r.must(err)
	return &rig{T: r.T, dir: r.dir, p: r.p, target: r.target, chosen: w}
}

// second is another volume of the same kind.
func (r *rig) second() (*scratch.Volume, snapshot.Target) {
	r.Helper()
	v := scratch.New(r.T, r.target.Volume.FSType, 400*scratch.MiB)
	found, _ := scratch.Find(r.T, v.Dir)
	return v, snapshot.Target{Volume: found, Paths: []string{"."}}
}

// A cache file that fails after what was to be saved had been taken loses the
// snapshot at once: nothing else has to be saved before it is known.
func TestCacheFailsLater(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		v, _ := r.second()
		r = r.cachedOn(v.Dir)
		var fs []*os.File
		names := []string{"file", "unread"}
		for _, name := range names {
			r.must(os.WriteFile(r.path(name), block('A'), 0o644))
		}
		s := r.take(func() {
			for _, name := range names {
				f, err := os.OpenFile(r.path(name), os.O_RDWR, 0)
				r.must(err)
				t.Cleanup(func() { f.Close() })
				fs = append(fs, f)
			}
		})
		resume, err := s.cache.Pause(t.Context(), false)
		r.must(err)
		defer resume()
		for _, f := range fs {
			_, err = f.WriteAt(block('B'), 0)
			r.must(err)
		}
		if got := r.read(s, "file"); !bytes.Equal(got, block('A')) {
			t.Error("what is in memory is not what it was")
		}
		r.must(s.Err())
		shutDown(t, v.Dir)
		resume()
		waitFor(t, func() bool { return s.Err() != nil })
		if code := problem.CodeOf(s.Err()); code != problem.CacheLost {
			t.Errorf("Err is %v, with the code %s", s.Err(), code)
		}
		if b, err := os.ReadFile(s.Root() + "/unread"); err == nil {
			t.Errorf("a lost snapshot reads %q", b[:1])
		}
		_, err = fs[0].WriteAt(block('C'), 0) // nobody is kept waiting
		r.must(err)
		r.must(s.Release(context.Background()))
	})
}

// shutDown makes a file system fail as if its device did (FS_IOC_SHUTDOWN,
// _IOR('X', 125, __u32) in linux/fs.h; 2 is without a flush of the log).
func shutDown(t *testing.T, dir string) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.IoctlSetPointerInt(int(d.Fd()), 0x8004587d, 2); err != nil {
		t.Fatal(err)
	}
}

// The filters of other sets hear nothing of a cache file, whichever was there
// first.
func TestCacheIsSilent(t *testing.T) {
	for name, first := range map[string]bool{"filter first": true, "cache first": false} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, r *rig) {
				v, target := r.second()
				other := &rig{T: t, dir: v.Dir, p: r.p, target: target}
				if first {
					r.must(r.p.Watch(t.Context(), target.Volume))
					defer func() { r.must(r.p.Unwatch(target.Volume.ID)) }()
				}
				const n = 500
				r.must(os.WriteFile(r.path("file"), bytes.Repeat(block('A'), n), 0o644))
				mine := r.cachedOn(v.Dir)
				s := mine.take(nil)
				armed := other.take(nil)
				before := other.events()
				r.must(os.WriteFile(r.path("file"), bytes.Repeat(block('B'), n), 0o644))
				r.must(s.cache.Flush(t.Context()))
				if events := other.events() - before; events != 0 {
					t.Errorf("the cache file makes %d events", events)
				}
				if got := r.read(s, "file"); !bytes.Equal(got, bytes.Repeat(block('A'), n)) {
					t.Error("the snapshot is not as it was")
				}
				r.must(s.Err())
				r.must(armed.Err())
			})
		})
	}
}

// While another set has frozen the volume that the cache file lies on, nobody
// who changes a file waits for the thaw.
func TestCacheOnFrozenVolume(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		v, target := r.second()
		r = r.cachedOn(v.Dir)
		const n = 2000
		r.must(os.WriteFile(r.path("file"), bytes.Repeat(block('A'), n), 0o644))
		var f *os.File
		s := r.take(func() {
			var err error
			f, err = os.OpenFile(r.path("file"), os.O_RDWR, 0)
			r.must(err)
			t.Cleanup(func() { f.Close() })
		})
		ids++
		pending, err := r.p.Prepare(t.Context(), fmt.Sprint("frozen", ids), []snapshot.Target{target})
		r.must(err)
		defer func() { r.must(pending.Abort(context.Background())) }()
		r.must(pending.Hold(t.Context()))
		worst := time.Duration(0)
		for i := int64(0); i < n; i += 100 {
			began := time.Now()
			_, err := f.WriteAt(bytes.Repeat(block('B'), 100), i*4096)
			r.must(err)
			worst = max(worst, time.Since(began))
		}
		r.must(pending.Resume(t.Context()))
		if worst > time.Second {
			t.Errorf("a write waited for %v", worst)
		}
		if got := r.read(s, "file"); !bytes.Equal(got, bytes.Repeat(block('A'), n)) {
			t.Error("the snapshot is not as it was")
		}
		r.must(s.Err())
		if gaps := s.Gaps(); len(gaps) > 0 {
			t.Errorf("%+v", gaps)
		}
	})
}

// A server that fills its only volume costs the snapshot before one of its own
// writes fails.
func TestCacheGivesWay(t *testing.T) {
	eachAlone(t, func(t *testing.T, r *rig) {
		content := bytes.Repeat(block('A'), 30<<20/4096)
		r.must(os.WriteFile(r.path("file"), content, 0o644))
		s := r.take(nil)
		r.must(os.WriteFile(r.path("file"), content, 0o644)) // 30 MiB are saved
		r.must(s.cache.Flush(t.Context()))
		left := func() int64 {
			var st unix.Statfs_t
			r.must(unix.Statfs(r.dir, &st))
			return int64(st.Bavail) * st.Bsize
		}
		free := left()
		f, err := os.Create(r.path("more"))
		r.must(err)
		defer f.Close()
		for wrote := int64(0); wrote < free+20<<20; wrote += 1 << 20 {
			// How fast it looks is no matter of this test, on a busy host.
			if left() < 8<<20 {
				waitFor(t, func() bool { return left() > 25<<20 })
			}
			if _, err := f.Write(content[:1<<20]); err != nil {
				t.Fatalf("a write of the server failed after %d of %d MiB: %v; the snapshot says %v", wrote>>20, free>>20, err, s.Err())
			}
			r.must(unix.Fdatasync(int(f.Fd())))
		}
		waitFor(t, func() bool { return problem.CodeOf(s.Err()) == problem.CacheFull })
		c, _ := s.Cache()
		if c.Used < 30<<20 {
			t.Errorf("the high-water mark is lost: %+v", c)
		}
		r.must(s.Release(context.Background()))
	})
}
