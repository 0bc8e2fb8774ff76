package zfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/mount"
	"stillpoint/internal/volume"
)

// A mounting is the mount of a snapshot, which the views of all targets show.
type mounting struct {
	once sync.Mutex
	at   *os.File // the mount, attached in the set's Space
	root *os.File // its root
}

// A view is how a target is shown: the snapshots of its datasets mounted on each other,
// in the private mounts of the set.
type view struct {
	of    *target
	root  *os.File
	parts []snapshot.Part
	gaps  []snapshot.Gap
}

// show makes the view of t. What comes later than is waited for is taken down again by
// whoever made it: until then it is nobody's.
func (t *target) show() error {
	var mu sync.Mutex
	late := false
	made := view{of: t}
	err := t.set.p.zfs.do(context.Background(), callLimit, "mount of "+t.ID(), func() error {
		v := view{of: t}
		err := v.build()
		mu.Lock()
		defer mu.Unlock()
		if err != nil || late {
			v.hide()
			return err
		}
		made = v
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	late = true
	if err != nil {
		made.hide() // it came at the last moment
		return err
	}
	t.view = made
	return nil
}

// hide takes the view down.
func (v *view) hide() {
	if v.root != nil {
		_ = v.of.set.space.Detach(v.root)
		v.root.Close()
		v.root = nil
	}
}

func (v *view) build() error {
	s := v.of.set
	at, err := s.directory(fmt.Sprint("target", v.of.index))
	if err != nil {
		return err
	}
	defer at.Close()
	for _, pl := range v.of.places {
		m := s.members[pl.dataset]
		if pl.at == "." {
			if v.root, err = s.graft(m, at); err != nil {
				return err
			}
			v.part(m, ".")
		} else if err := v.nested(m, pl.at); err != nil {
			return err
		}
	}
	if err := v.absent(); err != nil {
		return err
	}
	slices.SortFunc(v.gaps, func(a, b snapshot.Gap) int { return strings.Compare(a.Path, b.Path) })
	fault.Point("zfs:mounted")
	return nil
}

func (v *view) part(m *member, at string) {
	v.parts = append(v.parts, snapshot.Part{Path: at, Volume: m.volume(), Taken: m.taken})
}

func (v *view) gap(at string, code problem.Code, reason string) {
	v.gaps = append(v.gaps, snapshot.Gap{Path: at, Code: code, Reason: reason})
}

// nested mounts the snapshot of a dataset at its place, or says why not.
func (v *view) nested(m *member, at string) error {
	if m.gap != nil {
		v.gap(at, m.gap.Code, m.gap.Reason)
		return nil
	}
	on, err := mount.OpenBelow(v.root, at)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
		v.gap(at, problem.VolumeLost, "what dataset "+m.dataset+" is mounted on is not in the snapshot")
		return nil
	case err != nil:
		return err
	}
	defer on.Close()
	g, err := v.of.set.graft(m, on)
	if err != nil {
		return err
	}
	g.Close()
	v.part(m, at)
	return nil
}

// graft mounts the snapshot of m on a directory of the Space.
func (s *set) graft(m *member, on *os.File) (*os.File, error) {
	root, err := s.mounted(m)
	if err != nil {
		return nil, err
	}
	return s.space.Graft(root, on, readOnly)
}

// mounted mounts the snapshot of m, once.
func (s *set) mounted(m *member) (*os.File, error) {
	m.mount.once.Lock()
	defer m.mount.once.Unlock()
	if m.mount.root != nil {
		return m.mount.root, nil
	}
	name := m.name(s.id)
	mnt, err := mount.Open("zfs", []mount.Option{{Key: "source", Value: name}, {Key: "ro"}}, readOnly)
	if err != nil {
		return nil, err
	}
	at, err := s.directory(fmt.Sprint("snapshot", m.guid))
	if err == nil {
		defer at.Close()
		err = s.space.Attach(mnt, at)
	}
	if err != nil {
		mnt.Close()
		return nil, err
	}
	root, err := mount.OpenBelow(mnt, ".")
	if err != nil {
		_ = s.space.Detach(mnt)
		mnt.Close()
		return nil, err
	}
	m.mount.at, m.mount.root = mnt, root
	return root, nil
}

// unmount takes the mount away.
func (m *member) unmount(space *mount.Space) {
	m.mount.once.Lock()
	defer m.mount.once.Unlock()
	if m.mount.root != nil {
		_ = space.Detach(m.mount.root)
		m.mount.root.Close()
	}
	if m.mount.at != nil {
		m.mount.at.Close()
	}
	m.mount.root, m.mount.at = nil, nil
}

// directory makes a directory in the set's private mounts.
func (s *set) directory(name string) (*os.File, error) {
	if err := file.MakeDirectory(int(s.space.Root().Fd()), name); err != nil {
		return nil, err
	}
	return mount.OpenBelow(s.space.Root(), name)
}

// absent names the datasets that are not mounted, and those that were mounted after the
// set was planned.
func (v *view) absent() error {
	t := v.of
	for _, m := range t.set.missing[t] {
		if !m.onlyEmpty || v.empty(m.at) {
			v.gap(m.at, m.Code, m.Reason)
		}
	}
	table, err := t.set.since()
	if err != nil {
		return fmt.Errorf("look for datasets that came meanwhile: %w", err)
	}
	for _, pl := range places(table, t.target.Volume, t.paths) {
		if slices.Contains(t.places, pl) || v.named(pl.at) {
			continue
		}
		v.gap(pl.at, problem.VolumeLate, "dataset "+pl.dataset+" was mounted here while the snapshot was taken")
	}
	return nil
}

// since is what was mounted when the first target was shown.
func (s *set) since() (table *volume.Table, err error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	if s.after == nil {
		ctx, cancel := contextFor(answerLimit)
		defer cancel()
		s.after, err = s.p.host(ctx)
	}
	return s.after, err
}

// named tells whether there is a gap at a place, or around it.
func (v *view) named(at string) bool {
	return slices.ContainsFunc(v.gaps, func(g snapshot.Gap) bool { return below(g.Path, at) })
}

// empty tells whether a path of the view is an empty directory.
func (v *view) empty(at string) bool {
	d, err := mount.OpenBelow(v.root, at)
	if err != nil {
		return false
	}
	defer d.Close()
	names, err := d.Readdirnames(1)
	return len(names) == 0 && err != nil && path.Clean(at) != "."
}
