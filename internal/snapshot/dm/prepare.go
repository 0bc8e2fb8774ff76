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
	return p.prepare(ctx, id, ts, p.rules, "")
}

func (p *Provider) prepare(ctx context.Context, id string, ts []snapshot.Target, r cachefile.Rules, dir string) (_ snapshot.Pending, err error) {
	if len(ts) == 0 {
		return nil, fmt.Errorf("set %q of no targets", id)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var vs []volume.Volume
	for _, t := range ts {
		if err := p.check(ctx, t.Volume, r, dir); err != nil {
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
	if err := s.open(ts); err != nil {
		return nil, err
	}
	if err := s.lay(ctx, vs, r, dir); err != nil {
		return nil, err
	}
	if err := s.write(ctx); err != nil { // so that the freeze finds little to write
		return nil, problem.New(problem.SnapshotFailed, id, err)
	}
	return s, nil
}

// lay makes the stores and lays our devices below the origins. No command of LVM
// waits for the former.
func (s *set) lay(ctx context.Context, vs []volume.Volume, r cachefile.Rules, dir string) error {
	return locked(ctx, func() error {
		// Not before: another process may want its cache file on one of ours.
		place, _, err := s.p.place(ctx, vs, r, dir)
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

// open opens all volumes and gives them to a guard, which also takes away what we
// leave when we die.
func (s *set) open(ts []snapshot.Target) error {
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
		t := &target{set: s, volume: wanted.Volume, origin: origin{s.control, number}}
		t.tag = tag{origin: number, set: s.id, index: i, owner: me}
		s.targets = append(s.targets, t)
		if t.root, err = open(wanted.Volume); err != nil {
			return err
		}
		systems = append(systems, frozen.System{Root: t.root, Name: string(wanted.Volume.ID), Depth: depthOf(wanted.Volume, ts, len(ts))})
	}
	if s.hold, err = frozen.New(systems); err != nil {
		return problem.New(problem.SnapshotFailed, s.id, err)
	}
	if err := s.hold.Bequeath(Name, s.id); err != nil { // before there is anything to leave
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
