package btrfs

import (
	"context"
	"errors"
	"os"
	"strconv"
	"syscall"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/mount"
)

// Release deletes the snapshots that no other target of the set needs, and
// with the last one everything else of the set.
func (t *target) Release(ctx context.Context) error {
	unlock, err := t.set.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.set.state == over {
		return nil
	}
	if !t.released {
		t.released = true
		for _, m := range t.members {
			m.users--
		}
		t.hide()
	}
	return t.set.release(ctx)
}

// hide takes the view down. Who has a file of it open can go on reading.
func (t *target) hide() {
	if t.view.root != nil {
		_ = t.set.space.Detach(t.view.root)
		t.view.root.Close()
		t.view.root = nil
	}
}

// release removes what nobody needs any more. It goes on after a failure, and
// may be called again.
func (s *set) release(ctx context.Context) error {
	var errs []error
	left := 0
	for _, m := range s.members {
		if m.users > 0 {
			left++
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		m.close()
		if err := m.fs.remove(m.id, s.id); err != nil {
			errs = append(errs, err)
		}
	}
	if left == 0 {
		for _, f := range s.filesystems {
			if err := f.removeSet(ctx, s.id); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return problem.New(problem.ReleaseFailed, s.id, err)
	}
	if left == 0 {
		s.close()
	}
	return nil
}

// undo removes everything of the set, however far it came.
func (s *set) undo(ctx context.Context) error {
	for _, t := range s.targets {
		t.hide()
	}
	for _, m := range s.members {
		m.users = 0
	}
	return s.release(ctx)
}

// close gives back what ends with the process anyway.
func (s *set) close() {
	s.state = over
	for _, m := range s.members {
		m.close()
	}
	if s.space != nil {
		_ = s.space.Close()
	}
	for _, f := range s.filesystems {
		f.close()
	}
}

func (m *member) close() {
	m.closeSource()
	if m.root != nil {
		m.root.Close()
		m.root = nil
	}
}

// closeSource closes what is not needed once the snapshot is made.
func (m *member) closeSource() {
	for _, f := range []**os.File{&m.source, &m.place} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
}

// remove deletes the snapshot of a subvolume, and its place. Where there is
// none it has nothing to do.
func (f *filesystem) remove(id uint64, set string) error {
	if f.record == nil {
		return nil // nothing can be there that is ours
	}
	in, ok := f.record.intent(id)
	if !ok {
		return nil
	}
	name := strconv.FormatUint(id, 10)
	where := set + "/" + name
	dir, err := openMaybe(f.folder.dir, where)
	if dir == nil || err != nil {
		return coded(folderName+"/"+where, err)
	}
	defer dir.Close()
	if err := f.removeSnapshot(dir, in, where); err != nil {
		return err
	}
	outer, err := mount.OpenBelow(f.folder.dir, set)
	if err != nil {
		return coded(folderName+"/"+set, err)
	}
	defer outer.Close()
	return removeEmpty(outer, name, where)
}

func (f *filesystem) removeSnapshot(dir *os.File, in intent, where string) error {
	snap, err := openMaybe(dir, snapshotName)
	if snap == nil || err != nil {
		return coded(folderName+"/"+where, err)
	}
	s, err := btrfs.Ask(snap)
	snap.Close() // or it could not be cleaned up by the kernel
	if err != nil {
		return coded(folderName+"/"+where, err)
	}
	if !in.fits(s) {
		return foreign(where+"/"+snapshotName, "is not the snapshot that is on record")
	}
	fault.Point("btrfs:releasing")
	if err := btrfs.Delete(f.top, s.ID); err != nil && !errors.Is(err, syscall.ENOENT) {
		return coded(folderName+"/"+where, err)
	}
	fault.Point("btrfs:snapshot-deleted")
	return nil
}

// fits tells whether a subvolume that was found is provably the snapshot on
// record: by its UUID, or when the process died before it could write that
// down, by all that was known before.
func (in intent) fits(s btrfs.Subvolume) bool {
	if in.Snapshot != (btrfs.UUID{}) {
		return s.UUID == in.Snapshot
	}
	return in.UUID != (btrfs.UUID{}) && s.Parent == in.UUID && s.ReadOnly && s.Created > in.Generation &&
		s.Within == btrfs.TopLevel && s.Dir == in.Place
}

// removeSet removes what is left when all snapshots of a set are gone.
func (f *filesystem) removeSet(ctx context.Context, set string) error {
	if f.record != nil {
		if err := removeEmpty(f.folder.dir, set, set); err != nil {
			return err
		}
		fault.Point("btrfs:places-removed")
		if err := file.Remove(fd(f.folder.dir), f.record.name); err != nil && !errors.Is(err, syscall.ENOENT) {
			return coded(folderName+"/"+f.record.name, err)
		}
		fault.Point("btrfs:record-removed")
	}
	err := removeFolder(ctx, f.top, f.folder)
	if f.record == nil && problem.Is(err, problem.LeftoverForeign) {
		return nil // which is why there is no record
	}
	return err
}

// removeEmpty removes a directory that should be empty by now.
func removeEmpty(dir *os.File, name, where string) error {
	err := file.RemoveDirectory(fd(dir), name)
	switch {
	case err == nil, errors.Is(err, syscall.ENOENT):
		return nil
	case errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EPERM):
		return foreign(where, "holds what is not ours")
	}
	return coded(folderName+"/"+where, err)
}
