package btrfs

import (
	"path"
	"slices"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/btrfs"
)

// complete is nil when each subvolume that holds a selected path was, at the
// instant, where it was planned by, as far as the snapshots of the outer ones
// tell. Else it was moved or deleted meanwhile, and its snapshot may be of
// anything.
func (t *target) complete() error {
	captured := map[uint64]*member{}
	for _, m := range t.members {
		if m.gap == nil {
			captured[m.id] = m
		}
	}
	for _, pl := range t.places {
		if !pl.required {
			continue
		}
		for n := pl.node; n.ID != t.id && n.within != nil; n = n.within {
			outer := captured[n.within.ID]
			if outer == nil {
				continue
			}
			ok, err := outer.holds(n)
			if err != nil {
				return coded(string(outer.volume()), err)
			}
			if !ok {
				return problem.Newf(problem.VolumeLost, string(t.target.Volume.ID),
					"the subvolume at %s was moved or deleted while the snapshot was taken", pl.at)
			}
		}
	}
	return nil
}

// holds tells whether the snapshot m has n where it was planned by.
func (m *member) holds(n *node) (bool, error) {
	stub, ok, err := btrfs.StubAt(m.fs.top, m.snap.ID, n.Dir, n.Index)
	if err != nil {
		return false, err
	}
	if ok && stub.ID == n.ID {
		dir, err := btrfs.Path(m.fs.top, m.snap.ID, stub.Dir)
		return path.Join(dir, stub.Name) == n.rel, err
	}
	// It may have gone and come back.
	holes, err := m.holes()
	return slices.Contains(holes, hole{n.ID, n.rel}), err
}
