package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/frozen"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// A set is the snapshots of one Prepare, from there to the last Release.
type set struct {
	id      string
	console *console
	control *dm.Control
	targets []*target
	hold    *frozen.Hold
	watch   *watcher

	busy    chan struct{} // held by the call that changes the set
	state   state
	aborted atomic.Bool // Abort was called
	trying  atomic.Bool // to undo it, after that has failed

	activation sync.Once
	working    sync.WaitGroup // who watches, and asks LVM

	mu        sync.Mutex
	held      bool // Hold has begun to freeze
	suspended bool // and has come to its end
	resumed   bool // and Resume has ended it
}

// state is how far a set has come.
type state int

const (
	prepared state = iota
	taken
	failed
	over // nothing is left
)

// A target is one of the set's.
type target struct {
	set    *set
	index  int
	volume volume.Volume
	origin origin
	root   *os.File    // of the file system, until it was resumed
	place  *place      // nil until it is made
	told   bool        // the pool, to take the snapshot, and it did
	trying atomic.Bool // to release it, after that has failed

	showing sync.Mutex // held before mu, while it is shown
	tide    tide       // of its pool

	mu sync.Mutex
	snap
}

func (s *set) prepare(ctx context.Context, ts []snapshot.Target) error {
	for i, one := range ts { // before LVM is asked, which might read what is suspended
		t := &target{set: s, index: i, volume: one.Volume}
		var err error
		if t.origin, err = find(s.control, one.Volume); err != nil {
			return err
		}
		s.targets = append(s.targets, t)
	}
	lvs, err := s.console.list(ctx)
	if err != nil {
		return coded(s.id, fmt.Errorf("ask LVM what there is: %w", err))
	}
	if err := s.unused(lvs); err != nil {
		return err
	}
	for _, t := range s.targets {
		if err := t.origin.known(t.volume, lvs); err != nil {
			return err
		}
		if err := t.origin.pool.lets(t.poolName(), s.mappedIn(t.origin.pool)); err != nil {
			return err
		}
		if t.root, err = openRoot(t.volume); err != nil {
			return err
		}
	}
	if err := s.makeHold(); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, err)
	}
	if err := s.makePlaces(ctx); err != nil {
		return err
	}
	if err := s.hold.Write(ctx); err != nil {
		return coded(s.id, err)
	}
	return ctx.Err()
}

// mappedIn is how many sectors the volumes of the set have in a pool.
func (s *set) mappedIn(p pool) (sectors uint64) {
	for _, t := range s.targets {
		if t.origin.pool.number == p.number {
			sectors += t.origin.mapped
		}
	}
	return sectors
}

// makeHold starts what is to freeze the file systems, and removes what is left of the
// set when this process dies. There is nothing yet.
func (s *set) makeHold() (err error) {
	var all []frozen.System
	for _, t := range s.targets {
		all = append(all, frozen.System{Root: t.root, Name: string(t.volume.ID)})
	}
	if s.hold, err = frozen.New(all); err != nil {
		return err
	}
	return s.hold.Bequeath(Name, s.id)
}

// unused makes sure that there is no set of this id.
func (s *set) unused(lvs []logical) error {
	for _, lv := range lvs {
		if c, ours := lv.read(); ours && c.set == s.id || strings.HasPrefix(lv.Name, namePrefix+s.id+"-") {
			return problem.Newf(problem.Busy, s.id, "a set of this id exists: %s", lv.full())
		}
	}
	return nil
}

func validID(id string) bool {
	return id != "" && len(id) <= 32 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// openRoot opens a directory of a volume's file system.
func openRoot(v volume.Volume) (*os.File, error) {
	var why error
	for _, m := range v.Mounts {
		if m.Hidden || m.Deleted {
			continue
		}
		f, err := openOn(m.Point, v.Device)
		if err == nil {
			return f, nil
		}
		why = errors.Join(why, err)
	}
	return nil, problem.New(problem.VolumeLost, string(v.ID), errors.Join(errors.New("none of its mounts can be opened"), why))
}

// Together is nil when one set can hold all of the volumes.
func (p *Provider) Together(ctx context.Context, vs []volume.Volume) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return apart(vs)
}

// apart is nil where the pool of none of the volumes lies in a file on another one:
// to take a snapshot the pool writes, and would wait until the guard lets the other
// one's writers go on.
func apart(vs []volume.Volume) error {
	for _, v := range vs {
		for _, d := range v.Stack {
			for _, o := range vs {
				if o.ID != v.ID && d.File != "" && carries(o, d.File) {
					return problem.Newf(problem.NotOneInstant, string(v.ID), "lies in %s on %s, whose writes cannot be suspended while its volume group has to be written to for the snapshot; they can be taken one at a time (--one-at-a-time)", d.File, o.ID)
				}
			}
		}
	}
	return nil
}

func carries(v volume.Volume, path string) bool {
	for _, m := range v.Mounts {
		if strings.HasPrefix(path, strings.TrimSuffix(m.Point, "/")+"/") {
			return true
		}
	}
	return false
}

// undo removes everything of the set, however far it came.
func (s *set) undo(ctx context.Context) error {
	_, err := s.release() // if it was held
	errs := []error{err}
	for _, t := range s.targets {
		errs = append(errs, t.remove(ctx))
	}
	return errors.Join(errs...)
}

// letGo gives back what was needed to hold writers, and keeps the guard.
func (s *set) letGo() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.hold != nil {
		err = s.hold.Forget()
	}
	s.closeRoots()
	return err
}

// end also ends the guard, if it is not ended.
func (s *set) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.hold != nil {
		err = s.hold.Close()
	}
	s.closeRoots()
	return err
}

// closeRoots lets others unmount the file systems. It is called with mu held.
func (s *set) closeRoots() {
	for _, t := range s.targets {
		if t.root != nil {
			t.root.Close()
			t.root = nil
		}
	}
}

// close gives back what ends with the process anyway.
func (s *set) close() {
	s.state = over
	_ = s.end()
	s.watch.stop()
	go func() { // who is at work may wait for a disk, or for LVM
		s.working.Wait()
		_ = s.control.Close()
	}()
}
