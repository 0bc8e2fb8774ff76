package cow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
)

// each runs a test on both file systems.
func each(t *testing.T, run func(t *testing.T, r *rig)) {
	scratch.NeedRoot(t)
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			v := scratch.New(t, fs, 400*scratch.MiB)
			found, _ := scratch.Find(t, v.Dir)
			run(t, &rig{T: t, dir: v.Dir, p: New(host, Options{}), target: snapshot.Target{Volume: found, Paths: []string{"."}}})
		})
	}
}

// A rig is a volume and its provider.
type rig struct {
	*testing.T
	dir    string
	p      *Provider
	target snapshot.Target
	chosen snapshot.Provider // takes the snapshots, where it is not p itself
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// take takes a snapshot. Between calls it before the instant, when the set is
// prepared.
func (r *rig) take(between func()) *target {
	r.Helper()
	s, err := r.try(between)
	r.must(err)
	return s
}

var ids int

func (r *rig) try(between func()) (*target, error) { return r.tryIn(r.Context(), between) }

func (r *rig) tryIn(ctx context.Context, between func()) (*target, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ids++
	taker := r.chosen
	if taker == nil {
		taker = r.p
	}
	pending, err := taker.Prepare(ctx, fmt.Sprint("test", ids), []snapshot.Target{r.target})
	if err != nil {
		return nil, err
	}
	r.Cleanup(func() { r.must(pending.Abort(context.Background())) })
	if between != nil {
		between()
	}
	err = pending.Hold(ctx)
	var snaps []snapshot.Snapshot
	if err == nil {
		snaps, err = pending.Commit(ctx)
	}
	if rerr := pending.Resume(ctx); err == nil {
		err = rerr
	}
	if err != nil {
		return nil, err
	}
	s := snaps[0].(*target)
	r.Cleanup(func() { r.must(s.Release(context.Background())) })
	return s, nil
}

func (r *rig) read(s *target, name string) []byte {
	r.Helper()
	b, err := os.ReadFile(filepath.Join(s.Root(), name))
	r.must(err)
	return b
}

// block is one of the letters of the example.
func block(letter byte) []byte { return bytes.Repeat([]byte{letter}, 4096) }

// The example of the option we follow: a file of blocks A, B, C is open; the
// snapshot is taken; B becomes D; the cache file holds B; the snapshot reads A,
// B, C and the live file A, D, C; then snapshot and cache file are gone.
func TestExample(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		var f *os.File
		open := func() {
			var err error
			f, err = os.OpenFile(r.path("file"), os.O_RDWR, 0)
			r.must(err)
			t.Cleanup(func() { f.Close() })
		}
		r.must(os.WriteFile(r.path("file"), bytes.Join([][]byte{block('A'), block('B'), block('C')}, nil), 0o644))
		s := r.take(open) // shielded: opened after the filter was there
		if used := s.cache.Stats().Content; used != 0 {
			t.Errorf("before the change the cache file holds %d bytes", used)
		}
		_, err := f.WriteAt(block('D'), 4096)
		r.must(err)
		if used := s.cache.Stats().Content; used != 4096 {
			t.Errorf("the cache file holds %d bytes, want the one block", used)
		}
		saved := make([]byte, 4096)
		_, err = s.cache.ReadAt(saved, 0)
		r.must(err)
		if !bytes.Equal(saved, block('B')) {
			t.Errorf("the cache file holds %q", saved[0])
		}
		letters := func(b []byte) string {
			if len(b) != 3*4096 {
				return fmt.Sprintf("%d bytes", len(b))
			}
			return string([]byte{b[0], b[4096], b[8192]})
		}
		if got := letters(r.read(s, "file")); got != "ABC" {
			t.Errorf("the snapshot reads %s", got)
		}
		live, err := os.ReadFile(r.path("file"))
		r.must(err)
		if got := letters(live); got != "ADC" {
			t.Errorf("the live file reads %s", got)
		}
		r.must(s.Err())
		r.must(s.Release(t.Context()))
		if _, err := os.ReadDir(s.Root()); err == nil {
			t.Error("the snapshot is still there")
		}
	})
}

// What is hot is copied: under the freeze while it is little, ahead of it when
// it is more, and when it never holds still the snapshot is refused by name.
func TestHot(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.p.o.Hot = 1 << 20
		content := bytes.Repeat([]byte("original"), 4<<20/8)
		r.must(os.WriteFile(r.path("file"), content, 0o644))
		f, err := os.OpenFile(r.path("file"), os.O_RDWR, 0)
		r.must(err)
		defer f.Close()
		s := r.take(nil)
		_, err = f.WriteAt(bytes.Repeat([]byte("changed!"), 4<<20/8), 0)
		r.must(err)
		if !bytes.Equal(r.read(s, "file"), content) {
			t.Error("the snapshot shows the change of a file that was open before")
		}
		r.must(s.Err())
		r.must(s.Release(t.Context()))

		stop := restless(f)
		_, err = r.try(nil)
		stop()
		if problem.CodeOf(err) != problem.UnshieldedFiles {
			t.Errorf("a hot file that never holds still: %v", err)
		} else {
			t.Log(err)
		}
	})
}

// The copies of files in use have room beyond what the cache file may be large
// by default, but not beyond what the user says.
func TestHotAndLarge(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		content := bytes.Repeat([]byte("original"), 120<<20/8)
		r.must(os.WriteFile(r.path("file"), content, 0o644))
		f, err := os.OpenFile(r.path("file"), os.O_RDWR, 0)
		r.must(err)
		defer f.Close()
		s := r.take(nil)
		_, err = f.WriteAt([]byte("changed!"), 0)
		r.must(err)
		if !bytes.Equal(r.read(s, "file"), content) {
			t.Error("the snapshot shows the change of a file that was open before")
		}
		r.must(errors.Join(s.Err(), s.Release(t.Context())))
		r.chosen, err = r.p.WithCache(snapshot.CacheChoice{Maximum: "60M"})
		r.must(err)
		if _, err := r.try(nil); problem.CodeOf(err) != problem.CacheFull {
			t.Errorf("with 60 MiB at most: %v", err)
		}
	})
}

// restless writes to a file all the time.
func restless(f *os.File) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := int64(0); ; i++ {
			select {
			case <-quit:
				return
			default:
				_, _ = f.WriteAt([]byte{byte(i)}, i%4096)
			}
		}
	}()
	return func() { close(quit); <-ended }
}

// The same where the cache file has room for some copies only: what is told is who
// never holds still, and not that the cache file is full of his copies.
func TestHotRoom(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.p.o.Hot, r.p.o.Cache.Maximum = 1<<20, cachefile.Bytes(cachefile.Least)
		r.must(os.WriteFile(r.path("file"), make([]byte, cachefile.Least/4), 0o644))
		f, err := os.OpenFile(r.path("file"), os.O_RDWR, 0)
		r.must(err)
		defer f.Close()
		stop := restless(f)
		_, err = r.try(nil)
		stop()
		if problem.CodeOf(err) != problem.UnshieldedFiles {
			t.Errorf("a hot file that never holds still: %v", err)
		}
	})
}

func itoa(n int) string { return fmt.Sprint(n) }

// waitFor waits until something is so.
func waitFor(t *testing.T, so func() bool) {
	t.Helper()
	for range 6000 {
		if so() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("it did not come to that")
}

// Where files come and go all the time, the instant is given up before anybody
// is held up.
func TestNoQuietTime(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.p.o.Quiet, r.p.o.few = 500*time.Millisecond, -1 // no luck
		stop := make(chan struct{})
		var storm sync.WaitGroup
		for i := range 4 {
			storm.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
						_ = os.WriteFile(r.path(fmt.Sprint("f", i, n%50)), nil, 0o644)
						_ = os.Remove(r.path(fmt.Sprint("f", i, (n+25)%50)))
					}
				}
			})
		}
		_, err := r.try(nil)
		close(stop)
		storm.Wait()
		if problem.CodeOf(err) != problem.NoQuietTime {
			t.Errorf("in a storm: %v", err)
		}
	})
}

// A file that is deleted before it is read is gone where it could not be kept,
// and is named; its number may stand for another file by then.
func TestGone(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.p.o.Keep = 1
		for i := range 20 {
			r.must(os.WriteFile(r.path(fmt.Sprint("file", i)), []byte("original"), 0o644))
		}
		s := r.take(nil)
		for i := range 20 {
			r.must(os.Remove(r.path(fmt.Sprint("file", i))))
		}
		for i := range 20 {
			r.must(os.WriteFile(r.path(fmt.Sprint("later", i)), []byte("another!"), 0o644))
			f, err := os.OpenFile(r.path(fmt.Sprint("later", i)), os.O_RDWR, 0)
			r.must(err)
			_, err = f.WriteAt([]byte("again"), 0)
			r.must(err)
			r.must(f.Close())
		}
		gone := 0
		for i := range 20 {
			name := fmt.Sprint("file", i)
			b, err := os.ReadFile(filepath.Join(s.Root(), name))
			switch {
			case err != nil:
				gone++
			case string(b) != "original":
				t.Errorf("%s reads %q", name, b)
			}
		}
		gaps := s.Gaps()
		if gone == 0 || len(gaps) != gone || gaps[0].Code != problem.FileGone {
			t.Errorf("%d files are gone, named are %+v", gone, gaps)
		}
		r.must(s.Err())
	})
}
