package btrfs

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/mount"
	"stillpoint/internal/volume"
)

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
	var parts []snapshot.Part
	for i, pl := range t.places {
		if m := t.members[i]; m.gap == nil {
			parts = append(parts, snapshot.Part{Path: pl.at, Volume: m.volume(), Taken: m.at.at})
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
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd(t.view.root))
}

// nowhere is a path that nothing can be read from.
const nowhere = "/proc/self/fd/none"

// ready makes the view when it is first needed. When that fails, the snapshot
// is not good.
func (t *target) ready() bool {
	if !t.shown && !t.released {
		t.shown = true
		if err := t.show(); err != nil {
			t.err = problem.New(problem.SnapshotLost, t.ID(), fmt.Errorf("mount it: %w", err))
		}
	}
	return t.shown && t.err == nil
}

// Err asks every snapshot whether it is what it was: there, read-only and
// without a change, on a file system that did not turn read-only.
func (t *target) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.err != nil:
	case t.released:
		return problem.Newf(problem.SnapshotLost, t.ID(), "it was released")
	case t.ready():
		t.err = t.look()
	}
	return t.err
}

func (t *target) look() error {
	for _, m := range t.members {
		if m.gap != nil {
			continue
		}
		if err := m.still(); err != nil {
			return problem.New(problem.SnapshotLost, t.ID(), fmt.Errorf("snapshot of %s: %w", m.volume(), err))
		}
	}
	return nil
}

// still is nil when the snapshot is what it was. Its generation says nothing:
// a balance raises that, and moves data without a change.
func (m *member) still() error {
	now, err := btrfs.Ask(m.root)
	if err != nil {
		return err
	}
	switch {
	case now.UUID != m.snap.UUID:
		return errors.New("it is another one by now")
	case !now.ReadOnly:
		return errors.New("somebody made it writable")
	case now.Changed != m.snap.Changed:
		return errors.New("somebody changed it")
	}
	if ok, err := mount.Writable(m.fs.top); err != nil || !ok {
		return errors.Join(errors.New("the file system turned read-only"), err)
	}
	return nil
}
