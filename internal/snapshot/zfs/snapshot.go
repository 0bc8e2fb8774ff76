package zfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/zfs"
	"stillpoint/internal/volume"
)

func (m *member) volume() volume.ID { return volume.ID("zfs:" + m.dataset) }

// ID is the set's and the volume's.
func (t *target) ID() string { return t.set.id + "/" + string(t.target.Volume.ID) }

// Volume is the target's.
func (t *target) Volume() volume.ID { return t.target.Volume.ID }

// Parts is the snapshots that Root is made of.
func (t *target) Parts() []snapshot.Part {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ready() {
		return slices.Clone(t.view.parts)
	}
	// What is known without a look at them.
	t.set.settled.Lock()
	defer t.set.settled.Unlock()
	var parts []snapshot.Part
	for _, pl := range t.places {
		if m := t.set.members[pl.dataset]; m.gap == nil {
			parts = append(parts, snapshot.Part{Path: pl.at, Volume: m.volume(), Taken: m.taken})
		}
	}
	return parts
}

// Gaps is what is not shown.
func (t *target) Gaps() []snapshot.Gap {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ready() {
		return nil
	}
	return slices.Clone(t.view.gaps)
}

// Root is the view's root by descriptor.
func (t *target) Root() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ready() || t.view.root == nil {
		return nowhere
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), t.view.root.Fd())
}

// nowhere is a path that nothing can be read from.
const nowhere = "/proc/self/fd/none"

// contextFor is for what nobody gives a context for.
func contextFor(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), limit)
}

// ready makes the view when it is first needed. When that fails, the snapshot is not
// good.
func (t *target) ready() bool {
	if !t.shown && !t.released && t.err == nil {
		t.shown = true
		err := t.set.settle()
		if err == nil {
			err = t.lost()
		}
		if err == nil {
			err = t.show()
		}
		if err != nil {
			t.err = problem.New(problem.SnapshotLost, t.ID(), fmt.Errorf("show it: %w", err))
		}
	}
	return t.shown && t.err == nil
}

// settle does what can wait until nothing is suspended: holds all snapshots of the set,
// looks at them, and writes down who they are.
func (s *set) settle() error {
	s.settled.Lock()
	defer s.settled.Unlock()
	if s.held {
		return nil
	}
	ctx, cancel := contextFor(callLimit)
	defer cancel()
	made := map[string]intent{}
	for name := range s.pools {
		ms := s.on(name)
		if err := s.hold(ctx, name, ms); err != nil {
			return err
		}
		for _, m := range ms {
			if m.users > 0 {
				m.lost = s.identify(ctx, m, made)
			}
		}
	}
	if err := s.record.made(made); err != nil {
		return err
	}
	s.date()
	s.held = true
	fault.Point("zfs:snapshots-recorded")
	return nil
}

// date sets when the snapshots were taken: their transaction group was closed some time
// before the call came back, which waited until it was written. Where the kernel does not
// know any more, the end of the call stays.
func (s *set) date() {
	for name := range s.pools {
		ms := s.on(name)
		i := slices.IndexFunc(ms, func(m *member) bool { return m.stats.CreateTXG > 0 })
		if i < 0 {
			continue
		}
		at, err := zfs.Closed(name, ms[i].stats.CreateTXG)
		if err != nil || at.After(ms[i].taken) {
			continue
		}
		for _, m := range ms {
			m.taken = at
		}
	}
	s.tellApart()
}

// hold keeps others from destroying the snapshots. Who was faster is noticed next.
func (s *set) hold(ctx context.Context, pool string, ms []*member) error {
	var names []string
	for _, m := range ms {
		if m.users > 0 {
			names = append(names, m.name(s.id))
		}
	}
	if len(names) == 0 {
		return nil
	}
	err := s.p.zfs.do(ctx, callLimit, "hold on "+pool, func() error { return s.device.Hold(pool, prefix+s.id, names) })
	if gone(err) {
		return nil
	}
	return coded(pool, err)
}

// identify asks a new snapshot who it is, and whether its dataset still is the one that
// was planned: that may have been renamed, and another one got its name. Then the
// snapshot is of that one, and ours all the same.
func (s *set) identify(ctx context.Context, m *member, made map[string]intent) error {
	name := m.name(s.id)
	st, err := s.p.stats(ctx, s.device, name)
	switch {
	case gone(err):
		return errors.New(name + " was destroyed, or its dataset renamed")
	case err != nil:
		return coded(name, err)
	case st.Properties[property] != s.record.tag():
		return errors.New(name + " is not the snapshot that was made")
	}
	dataset, err := s.p.stats(ctx, s.device, m.dataset)
	if err != nil {
		return coded(name, err)
	}
	m.stats = st
	in := s.record.intent(m.dataset)
	in.GUID, in.Snapshot = dataset.GUID, st.GUID
	made[m.dataset] = in
	if dataset.GUID != m.guid {
		return errors.New(m.dataset + " is another dataset by now")
	}
	return nil
}

// lost is why some snapshot of the target was not good from the beginning.
func (t *target) lost() error {
	for _, name := range t.datasets() {
		if m := t.set.members[name]; m.gap == nil && m.lost != nil {
			return m.lost
		}
	}
	return nil
}

// Err asks every snapshot whether it is what it was.
func (t *target) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.err != nil:
	case t.released:
		return problem.Newf(problem.SnapshotLost, t.ID(), "it was released")
	case t.ready():
		if err := t.look(); err != nil {
			t.err = problem.New(problem.SnapshotLost, t.ID(), err)
		}
	}
	return t.err
}

func (t *target) look() error {
	ctx, cancel := contextFor(answerLimit)
	defer cancel()
	for _, name := range t.datasets() {
		m := t.set.members[name]
		if m.gap != nil {
			continue
		}
		snap := m.name(t.set.id)
		now, err := t.set.p.stats(ctx, t.set.device, snap)
		switch {
		case gone(err):
			return errors.New(snap + " was destroyed, or its dataset renamed")
		case err != nil:
			return coded(snap, err)
		case now.GUID != m.stats.GUID:
			return errors.New(snap + " is another snapshot by now")
		}
	}
	return nil
}
