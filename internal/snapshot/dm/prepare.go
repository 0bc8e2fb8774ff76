package dm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/frozen"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// Prepare lays our devices below the origins. From then on these are asked, which
// nobody notices but by the time that it takes; nothing is kept yet.
func (p *Provider) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	return prepared(p.prepare(ctx, id, ts, storing{rules: p.rules, duty: Name}))
}

// prepared is a set as others see it, which is nil where it is none.
func prepared(s *set, err error) (snapshot.Pending, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// A storing says where the originals of a set go.
type storing struct {
	rules cachefile.Rules
	dir   string
	rooms []Room // instead of cache files; one for each target
	duty  string // the guard's, when we have died
}

// checkFor is nil where a volume can be taken so.
func (p *Provider) checkFor(ctx context.Context, v volume.Volume, to storing) error {
	if to.rooms != nil {
		return p.CheckRoomed(ctx, v)
	}
	return p.check(ctx, v, to.rules, to.dir)
}

func (p *Provider) prepare(ctx context.Context, id string, ts []snapshot.Target, to storing) (_ *set, err error) {
	if len(ts) == 0 {
		return nil, fmt.Errorf("set %q of no targets", id)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var vs []volume.Volume
	for _, t := range ts {
		if err := p.checkFor(ctx, t.Volume, to); err != nil {
			return nil, err
		}
		vs = append(vs, t.Volume)
	}
	s := &set{p: p, id: id, control: p.control}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Abort(context.WithoutCancel(ctx)))
		}
	}()
	if err := s.open(ts, to); err != nil {
		return nil, err
	}
	if err := s.makeRooms(ctx); err != nil {
		return nil, err
	}
	if err := s.lay(ctx, vs, to); err != nil {
		return nil, err
	}
	if err := s.hold.Write(ctx); err != nil { // so that the freeze finds little to write
		return nil, problem.New(problem.SnapshotFailed, id, err)
	}
	return s, nil
}

// lay makes the stores and lays our devices below the origins. No command of LVM
// waits for the former.
func (s *set) lay(ctx context.Context, vs []volume.Volume, to storing) error {
	return locked(ctx, func() error {
		// Not before: another process may want its cache file on one of ours.
		place, err := s.p.placeFor(ctx, vs, to)
		if err != nil {
			return err
		}
		for i, t := range s.targets {
			if err := errors.Join(ctx.Err(), t.keep(place, i)); err != nil {
				return t.failed("prepare", err)
			}
		}
		return groupsLocked(ctx, s.control, s.numbers(), func() error {
			for _, t := range s.targets {
				if err := errors.Join(ctx.Err(), t.lay()); err != nil {
					return t.failed("prepare", err)
				}
			}
			return nil
		})
	})
}

// placeFor is the place for the cache files of a set, where it has some.
func (p *Provider) placeFor(ctx context.Context, vs []volume.Volume, to storing) (cachefile.Placement, error) {
	if to.rooms != nil {
		return cachefile.Placement{}, p.untangled(ctx, vs)
	}
	place, _, err := p.place(ctx, vs, to.rules, to.dir)
	return place, err
}

// open opens all volumes and gives them to a guard, which also takes away what we
// leave when we die.
func (s *set) open(ts []snapshot.Target, to storing) error {
	me, err := self()
	if err != nil {
		return problem.New(problem.SnapshotFailed, s.id, err)
	}
	var systems []frozen.System
	for i, wanted := range ts {
		number, err := nearest(wanted.Volume)
		if err != nil {
			return err
		}
		t := &target{set: s, volume: wanted.Volume, origin: origin{s.control, number}, leaving: newTurn()}
		t.tag = tag{origin: number, set: s.id, index: i, owner: me}
		if to.rooms != nil {
			t.room = to.rooms[i]
		}
		s.targets = append(s.targets, t)
		if t.root, err = open(wanted.Volume); err != nil {
			return err
		}
		systems = append(systems, frozen.System{Root: t.root, Name: string(wanted.Volume.ID), Depth: depthOf(wanted.Volume, ts, len(ts))})
	}
	if s.hold, err = frozen.New(systems); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, err)
	}
	if err := s.hold.Bequeath(to.duty, s.id); err != nil { // before there is anything to leave
		return problem.New(problem.SnapshotFailed, s.id, err)
	}
	return nil
}

// depthOf is how many volumes of the set v lies on, being files there, one on the
// other.
func depthOf(v volume.Volume, ts []snapshot.Target, most int) (depth int) {
	for _, d := range v.Stack {
		for _, t := range ts {
			for _, m := range t.Volume.Mounts {
				if d.File != "" && most > 0 && t.Volume.ID != v.ID && strings.HasPrefix(d.File, strings.TrimSuffix(m.Point, "/")+"/") {
					depth = max(depth, 1+depthOf(t.Volume, ts, most-1))
				}
			}
		}
	}
	return depth
}

func (s *set) numbers() (all []dm.Number) {
	for _, t := range s.targets {
		all = append(all, t.origin.number)
	}
	return all
}
