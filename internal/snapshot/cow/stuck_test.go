package cow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow/shield"
)

// waitMost is the longest wait that these tests put up with. What is promised is
// a second; a host that has too much to do adds to it.
const waitMost = 1500 * time.Millisecond

// A swamp is a cache in which the saving of some files sticks, as in a device
// that does not answer: no context ends it.
type swamp struct {
	shield.Cache
	sticks func(number uint64) bool
	over   chan struct{}
}

func (s swamp) Save(ctx context.Context, from int, offset, length int64) (at, n int64, err error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(from, &st); err != nil {
		return 0, 0, err
	}
	if s.sticks(st.Ino) {
		<-s.over
	}
	return s.Cache.Save(ctx, from, offset, length)
}

// sticks makes the saving of some files stick until the test ends, or free is
// called.
func (r *rig) sticks(which func(number uint64) bool) (free func()) {
	over := make(chan struct{})
	free = sync.OnceFunc(func() { close(over) })
	r.Cleanup(func() {
		free()
		r.cleared()
	})
	r.p.o.through = func(c shield.Cache) shield.Cache { return swamp{c, which, over} }
	return free
}

// files makes so many files, each of which is open.
func (r *rig) files(prefix string, n int) (fs []*os.File) {
	r.Helper()
	for i := range n {
		f, err := os.Create(r.path(fmt.Sprint(prefix, i)))
		r.must(err)
		r.Cleanup(func() { f.Close() })
		_, err = f.Write(block('A'))
		r.must(err)
		fs = append(fs, f)
	}
	return fs
}

func numberOf(t *testing.T, f *os.File) uint64 {
	t.Helper()
	var st syscall.Stat_t
	must(t, syscall.Fstat(int(f.Fd()), &st))
	return st.Ino
}

// changeAll writes to each of the files by a thread of its own. wait returns the
// longest that one waited, and fails the test if that was too long or one was
// denied.
func (r *rig) changeAll(fs []*os.File, letter byte, times int) (wait func() time.Duration) {
	took := make([]time.Duration, len(fs))
	errs := make([]error, len(fs))
	var all sync.WaitGroup
	for i, f := range fs {
		all.Go(func() {
			for range times {
				began := time.Now()
				_, err := unix.Pwrite(int(f.Fd()), block(letter), 0)
				errs[i] = errors.Join(errs[i], err)
				took[i] = max(took[i], time.Since(began))
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	return func() (longest time.Duration) {
		r.Helper()
		ended := make(chan struct{})
		go func() { all.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			r.Fatal("somebody waits still")
		}
		r.must(errors.Join(errs...))
		for _, d := range took {
			longest = max(longest, d)
		}
		if longest > waitMost {
			r.Errorf("a write waited for %v", longest)
		}
		return longest
	}
}

// released releases a snapshot in time. It may be that somebody who is stuck
// keeps what it needs.
func (r *rig) released(s *target) time.Duration {
	r.Helper()
	began := time.Now()
	if err := s.Release(context.Background()); err != nil && problem.CodeOf(err) != problem.ReleaseFailed {
		r.Errorf("release: %v", err)
	}
	took := time.Since(began)
	if took > 2*waitMost {
		r.Errorf("the release took %v", took)
	}
	return took
}

// One save is stuck: who waits for it goes on after a second, and nobody else
// waits at all, also while one snapshot is released and another one taken.
func TestStuckSave(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.keep()
		stuck, others := r.files("stuck", 1), r.files("other", 100)
		number := numberOf(t, stuck[0])
		other := r.take(nil)
		free := r.sticks(func(n uint64) bool { return n == number })
		s := r.take(nil)
		one := r.changeAll(stuck, 'B', 1)
		time.Sleep(tick) // nothing depends on it, but then it is stuck as a rule
		many := r.changeAll(others, 'B', 100)
		release := r.released(other)
		r.p.o.through = nil
		next := r.take(nil)
		t.Logf("the one waited for %v at most, the others for %v, the release of another snapshot took %v", one(), many(), release)
		if got := r.read(s, "other0"); !bytes.Equal(got, block('A')) {
			t.Error("what is not stuck is not as it was")
		}
		r.must(s.Err())
		r.torn(s, "stuck0")
		r.released(s)
		r.must(next.Release(context.Background()))
		free()
		r.cleared()
	})
}

// cleared waits until everything is gone that those who were stuck have kept.
func (r *rig) cleared() {
	r.Helper()
	waitFor(r.T, func() bool {
		r.p.mu.Lock()
		defer r.p.mu.Unlock()
		users := 0
		for _, f := range r.p.filters {
			users += f.users
		}
		return len(r.p.caches) == 0 && users == len(r.p.kept)
	})
}

// torn wants a file to be named as one that could not be kept.
func (r *rig) torn(s *target, path string) {
	r.Helper()
	for _, g := range s.Gaps() {
		if g.Code == problem.FileTorn && g.Path == path {
			return
		}
	}
	r.Errorf("%s is not among %+v", path, s.Gaps())
}

// All saves are stuck: of a hundred who change a file each, none waits longer
// than one of them would.
func TestAllStuck(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		fs := r.keptFiles(100)
		r.sticks(func(uint64) bool { return true })
		s := r.take(nil)
		t.Logf("the longest wait was %v", r.changeAll(fs, 'B', 1)())
		r.must(s.Err())
		r.torn(s, "file0")
		r.released(s)
	})
}

// keep watches the volume until the test ends.
func (r *rig) keep() {
	r.Helper()
	r.must(r.p.Watch(r.Context(), r.target.Volume))
	r.Cleanup(func() { r.must(r.p.Unwatch(r.target.Volume.ID)) })
}

// keptFiles are files that are open since the volume is watched.
func (r *rig) keptFiles(n int) []*os.File {
	r.Helper()
	r.keep()
	return r.files("file", n)
}

// So many are stuck that nobody can listen any more: the snapshot is lost, and
// everybody goes on.
func TestNobodyListens(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		fs := r.keptFiles(100)
		f := r.p.filters[r.target.Volume.ID]
		f.turns.mu.Lock()
		f.turns.most = listeners + 2
		f.turns.mu.Unlock()
		r.sticks(func(uint64) bool { return true })
		s := r.take(nil)
		t.Logf("the longest wait was %v", r.changeAll(fs, 'B', 1)())
		if code := problem.CodeOf(s.Err()); code != problem.SnapshotLost {
			t.Errorf("the snapshot says %v", s.Err())
		}
		r.released(s)
		r.must(r.take(nil).Err()) // the next one can be had
	})
}

// Many wait at a gate, and when it opens none of their files can be saved: they
// go on a second later, all of them.
func TestStuckAtGate(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		fs := r.keptFiles(80)
		r.sticks(func(uint64) bool { return true })
		ids++
		pending, err := r.p.Prepare(t.Context(), fmt.Sprint("gate", ids), []snapshot.Target{r.target})
		r.must(err)
		s := pending.(*set).targets[0]
		defer func() { r.released(s) }()
		r.must(pending.Hold(t.Context()))
		var all sync.WaitGroup
		for _, f := range fs {
			all.Go(func() {
				if _, err := unix.Pwrite(int(f.Fd()), block('B'), 0); err != nil {
					t.Errorf("a write failed: %v", err)
				}
			})
		}
		waitFor(t, func() bool { return s.filter.held() == len(fs) || pending.(*set).expired.Load() })
		began := time.Now()
		_, err = pending.Commit(t.Context())
		err = errors.Join(err, pending.Resume(t.Context()))
		took := time.Since(began)
		all.Wait()
		if longest := time.Since(began); took > waitMost || longest > waitMost {
			t.Errorf("Commit and Resume took %v, the writes %v", took, longest)
		} else {
			t.Logf("Commit and Resume took %v, the writes %v", took, longest)
		}
		if code := problem.CodeOf(err); err != nil && code != problem.FreezeBlocked && code != problem.SnapshotLost {
			t.Errorf("the set: %v", err)
		}
	})
}

// When the window is over, everybody goes on, also where somebody is stuck who
// ends one of the snapshots.
func TestWindowWhileStuck(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		v, second := r.second()
		r.must(os.WriteFile(v.Dir+"/file", block('A'), 0o644))
		ids++
		pending, err := r.p.Prepare(t.Context(), fmt.Sprint("stuck", ids), []snapshot.Target{r.target, second})
		r.must(err)
		defer func() { r.must(pending.Abort(context.Background())) }()
		file, err := os.OpenFile(v.Dir+"/file", os.O_RDWR, 0)
		r.must(err)
		defer file.Close()
		r.must(pending.Hold(t.Context()))
		stuck := pending.(*set).targets[0]
		stuck.mu.Lock()
		wrote := make(chan error, 1)
		go func() {
			_, err := file.Write(block('B'))
			wrote <- err
		}()
		select {
		case err := <-wrote:
			r.must(err)
		case <-time.After(window + 2*time.Second):
			t.Error("a write waits still")
		}
		stuck.mu.Unlock()
		r.must(pending.Resume(t.Context()))
	})
}

// What a thread does at the gate cannot be found out: it goes on, and there is
// no set.
func TestUnknownAtGate(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.must(os.WriteFile(r.path("file"), block('A'), 0o644))
		ids++
		pending, err := r.p.Prepare(t.Context(), fmt.Sprint("unknown", ids), []snapshot.Target{r.target})
		r.must(err)
		defer func() { r.must(pending.Abort(context.Background())) }()
		r.must(pending.Hold(t.Context()))
		f := pending.(*set).targets[0].filter
		file, err := os.Open(r.path("file"))
		r.must(err)
		defer file.Close()
		s := f.turns.add(&slot{})
		defer f.turns.remove(s)
		e := nobody
		e.FD = int32(file.Fd())
		f.turns.begin(s, e)
		waitFor(t, func() bool {
			f.turns.mu.Lock()
			defer f.turns.mu.Unlock()
			return s.stage == out
		})
		_, err = pending.Commit(t.Context())
		if code := problem.CodeOf(err); code != problem.FreezeBlocked {
			t.Errorf("Commit: %v", err)
		}
		r.must(pending.Resume(t.Context()))
		f.turns.end(s)
	})
}
