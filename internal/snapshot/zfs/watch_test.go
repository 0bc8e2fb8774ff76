package zfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/mount"
	"stillpoint/internal/volume"
)

// shownSet is a taken set of the datasets tank/a and tank/b, whose snapshots are shown by
// a memory file system each. There is no ZFS in it.
func shownSet(t *testing.T) *set {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	s := &set{
		id: "set", p: &Provider{zfs: &stuck{}}, pools: map[string]pool{"tank": {}}, members: map[string]*member{},
		busy: make(chan struct{}, 1), quit: make(chan struct{}), state: taken, held: true,
	}
	var err error
	if s.space, err = mount.NewSpace(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.space.Close() })
	for i, name := range []string{"tank/a", "tank/b"} {
		v := volume.Volume{ID: volume.ID("zfs:" + name), FSType: "zfs", Source: name}
		tg := &target{set: s, index: i, target: snapshot.Target{Volume: v}, places: []place{{".", name}}, shown: true, yielded: make(chan struct{})}
		tg.view.of = tg
		m, err := mount.Open("tmpfs", nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		at, err := s.directory(fmt.Sprint("target", i))
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		if err := s.space.Attach(m, at); err != nil {
			t.Fatal(err)
		}
		if tg.view.root, err = mount.OpenBelow(m, "."); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tg.Root(), "in"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		s.members[name] = &member{dataset: name, users: 1}
		s.targets = append(s.targets, tg)
	}
	return s
}

func (t *target) isYielded() bool {
	select {
	case <-t.Yielded():
		return true
	default:
		return false
	}
}

// What counts for a quota is given up for it, and for the pool all is: nothing is found
// where it was shown, its snapshot is owed, and Release has nothing more to do.
func TestGiveUp(t *testing.T) {
	full := problem.Newf(problem.PoolFull, "tank", "planned")
	for _, test := range []struct {
		bound bound
		both  bool
	}{{bound{"tank/a", true}, false}, {bound{"tank", false}, true}} {
		s := shownSet(t)
		a, b := s.targets[0], s.targets[1]
		roots := []string{a.Root(), b.Root()}
		if s.owed() {
			t.Error("owed before")
		}
		for range 2 { // again is nothing new
			s.giveUp(limit{bound: test.bound}, full)
		}
		if !a.isYielded() || b.isYielded() != test.both || !s.owed() {
			t.Errorf("%v: yielded %v, %v, owed %v", test.bound, a.isYielded(), b.isYielded(), s.owed())
		}
		for i, tg := range s.targets {
			_, err := os.Stat(filepath.Join(roots[i], "in"))
			if gone := errors.Is(err, fs.ErrNotExist); gone != tg.isYielded() {
				t.Errorf("%v: %s shows: %v", test.bound, tg.ID(), err)
			}
			if tg.isYielded() && !problem.Is(tg.Err(), problem.PoolFull) {
				t.Errorf("%v: %v", test.bound, tg.Err())
			}
		}
		if err := s.release(t.Context(), 0); err != nil || (s.state == over) != test.both {
			t.Errorf("%v: %v, over %v", test.bound, err, s.state == over)
		}
		for range 2 {
			for _, tg := range s.targets {
				if err := tg.Release(t.Context()); err != nil {
					t.Errorf("%v: %v", test.bound, err)
				}
			}
		}
		if s.state != over || !problem.Is(a.Err(), problem.PoolFull) || a.view.root != nil || b.view.root != nil {
			t.Errorf("%v: in the end %v, %v", test.bound, s.state, a.Err())
		}
		if err := b.Err(); test.both != problem.Is(err, problem.PoolFull) || err == nil {
			t.Errorf("%v: in the end the other one says %v", test.bound, err)
		}
	}
}

// Within the window, and while another call is at the set, nothing is given up.
func TestSpareWaits(t *testing.T) {
	s := shownSet(t)
	s.window.Store(true)
	s.spare(nil) // would ask a device that is not there
	s.window.Store(false)
	s.busy <- struct{}{}
	s.spare(nil)
	<-s.busy
	for _, tg := range s.targets {
		if err := tg.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
	s.watch() // ends by itself
}
