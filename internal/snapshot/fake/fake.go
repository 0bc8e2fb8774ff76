// Package fake takes snapshots by copying directories. It is the reference
// implementation of the contract, and what other packages test with: it needs
// neither root nor a particular file system. It is strict where others may be
// lenient: it refuses a context that is over and a call at the wrong time, and
// it counts what is held. A copy is of one instant only for writers that go
// through its Gate.
//
// It differs from a real provider in three things: its copies can be written,
// they are of the selected paths only, and what is mounted below these is left
// out.
package fake

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// Name is the provider's.
const Name = "fake"

// Options change how a Provider behaves.
type Options struct {
	// Gate is what Hold closes. Nil lets nobody be held.
	Gate *Gate

	// Step is called before each step, by the name of the method: "check",
	// "prepare", "hold", "commit", "resume", "abort", "leftovers", "release".
	// It may wait, and its error is that of the step. Nil does nothing.
	Step func(ctx context.Context, step string) error

	// Accept decides for Check and Prepare. Nil accepts what is not on
	// another host.
	Accept func(volume.Volume) error

	// Separate takes each volume at an instant of its own.
	Separate bool
}

// A Gate stands between writers and their volumes.
type Gate struct{ mu sync.RWMutex }

// Write makes a change, when nobody holds the gate.
func (g *Gate) Write(change func()) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	change()
}

// A Provider copies directories into a store.
type Provider struct {
	store string
	o     Options

	mu   sync.Mutex
	held map[string]bool
	lost map[volume.ID]error
	told map[volume.ID]chan struct{} // closed when it is lost
}

// New makes a Provider that keeps its copies in the directory store, which
// must not lie in what it copies. Several may share a store, also those of
// other processes.
func New(store string, o Options) *Provider {
	if o.Gate == nil {
		o.Gate = &Gate{}
	}
	return &Provider{store: store, o: o, held: map[string]bool{}, lost: map[volume.ID]error{}, told: map[volume.ID]chan struct{}{}}
}

// Volume describes a directory as a volume of its own.
func Volume(dir string) volume.Volume {
	return volume.Volume{
		ID: volume.ID("fake:" + dir), Kind: volume.Local, FSType: "fake", Source: dir,
		Mounts: []volume.Mount{{Point: dir, Root: "/"}},
	}
}

// Held names what this provider holds: "set ID" from Prepare to Abort or the
// last Release, "hold ID" from Hold to Resume, "snapshot ID".
func (p *Provider) Held() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.held))
}

// Lose makes the snapshots of a volume go bad, or no more of them where err is nil.
func (p *Provider) Lose(id volume.ID, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost[id] = err
}

// GiveUp does the same, and tells who reads them (snapshot.Yielder).
func (p *Provider) GiveUp(id volume.ID, err error) {
	p.Lose(id, err)
	close(p.yielded(id))
}

// yielded is closed when the snapshots of a volume are given up.
func (p *Provider) yielded(id volume.ID) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told[id] == nil {
		p.told[id] = make(chan struct{})
	}
	return p.told[id]
}

func (p *Provider) hold(what string) { p.mu.Lock(); p.held[what] = true; p.mu.Unlock() }
func (p *Provider) let(what string)  { p.mu.Lock(); delete(p.held, what); p.mu.Unlock() }

// step begins every method.
func (p *Provider) step(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.o.Step != nil {
		if err := p.o.Step(ctx, name); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Name is "fake".
func (p *Provider) Name() string { return Name }

// About says what these snapshots are.
func (p *Provider) About() string { return "copies of directories" }

// Check is nil for what Options.Accept accepts.
func (p *Provider) Check(ctx context.Context, v volume.Volume) error {
	if err := p.step(ctx, "check"); err != nil {
		return err
	}
	return p.accept(v)
}

func (p *Provider) accept(v volume.Volume) error {
	switch {
	case p.o.Accept != nil:
		return p.o.Accept(v)
	case v.Kind == volume.Network:
		return problem.Newf(problem.NoProvider, string(v.ID), "is on another host")
	case len(v.Mounts) == 0:
		return problem.Newf(problem.VolumeLost, string(v.ID), "is not mounted")
	}
	return nil
}

// Prepare makes the directories that the copies will be in.
func (p *Provider) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	if err := p.step(ctx, "prepare"); err != nil {
		return nil, err
	}
	s := &set{p: p, id: id, live: make(chan struct{}, 1)}
	for _, t := range ts {
		if err := p.accept(t.Volume); err != nil {
			return nil, err
		}
		c := &copied{set: s, target: t}
		for _, rel := range t.Paths {
			live, ok := Live(t.Volume, rel)
			if !ok {
				return nil, problem.Newf(problem.PathMissing, rel, "no mount shows it")
			}
			if _, err := os.Lstat(live); err != nil {
				return nil, problem.New(problem.PathMissing, live, err)
			}
		}
		s.copies = append(s.copies, c)
	}
	if len(ts) == 0 {
		return nil, fmt.Errorf("set %q of no targets", id)
	}
	var err error
	if s.disk, err = create(p.store, id); err != nil {
		return nil, err
	}
	p.hold("set " + id)
	return s, nil
}

// Live is the path at which a path within a volume is seen on the host.
func Live(v volume.Volume, rel string) (string, bool) {
	for _, m := range v.Mounts {
		root := filepath.Clean("/" + m.Root)
		below, err := filepath.Rel(root, filepath.Join("/", rel))
		if err == nil && below != ".." && !strings.HasPrefix(below, "../") {
			return filepath.Join(m.Point, below), true
		}
	}
	return "", false
}

// Leftovers finds the sets in the store whose process has ended.
func (p *Provider) Leftovers(ctx context.Context) ([]snapshot.Snapshot, error) {
	if err := p.step(ctx, "leftovers"); err != nil {
		return nil, err
	}
	var sets []string
	err := looking(ctx, p.store, func() (err error) {
		sets, err = scan(p.store)
		return err
	})
	var found []snapshot.Snapshot
	for _, s := range sets {
		found = append(found, leftover{p, s})
	}
	return found, err
}

var _ snapshot.Provider = (*Provider)(nil)
