package btrfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/volume"
)

// Leftovers looks into the folders of every mounted btrfs.
func (p *Provider) Leftovers(ctx context.Context) ([]snapshot.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t, err := p.host(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for leftovers: %w", err)
	}
	var found []snapshot.Snapshot
	var errs []error
	seen := map[string]bool{}
	for _, v := range t.Volumes() {
		if v.FSType != "btrfs" || seen[v.Device] { // not the UUID, which a copy has, too
			continue
		}
		if err := ctx.Err(); err != nil {
			return found, err
		}
		seen[v.Device] = true
		l, err := leftovers(ctx, v)
		for _, one := range l {
			found = append(found, one)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("look for leftovers on %s (%s): %w", v.Source, v.UUID, err))
		}
	}
	return found, errors.Join(errs...)
}

// leftovers are those on the file system that v is part of.
func leftovers(ctx context.Context, v volume.Volume) ([]*leftover, error) {
	f, err := openTop(v)
	if err != nil {
		return nil, err
	}
	defer f.close()
	s := scan{f: f, v: v}
	s.atPlace(ctx)
	s.renamed(ctx)
	return s.found, errors.Join(s.errs...)
}

// A scan goes through the folders of a file system.
type scan struct {
	f      *filesystem
	v      volume.Volume
	folder *folder // that is looked into
	names  []string
	found  []*leftover
	errs   []error
}

// atPlace looks into the folder where it belongs.
func (s *scan) atPlace(ctx context.Context) {
	f, err := openFolder(s.f.top, folderName)
	if f != nil {
		defer f.close()
		err = s.look(ctx, f)
	}
	if err != nil {
		s.errs = append(s.errs, err)
	}
}

// renamed looks into folders that somebody has renamed. What is none of ours
// is no concern of ours there.
func (s *scan) renamed(ctx context.Context) {
	others, err := strays(s.f.top)
	if err != nil {
		s.errs = append(s.errs, coded(folderName, err))
	}
	for inode, set := range others {
		f, err := findFolder(s.f.top, inode)
		if f == nil || err != nil {
			continue
		}
		if !f.named(s.f.top) && f.records(set, s.f.uuid) {
			if err := s.look(ctx, f); err != nil {
				s.errs = append(s.errs, err)
			}
		}
		f.close()
	}
}

// records tells whether the folder has a record of ours of a set.
func (f *folder) records(set string, fs btrfs.UUID) bool {
	r, err := readRecord(f, set, fs)
	if err != nil {
		return false
	}
	r.close()
	return true
}

// look looks into one folder.
func (s *scan) look(ctx context.Context, f *folder) error {
	lock, err := f.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	s.folder = f
	if s.names, err = f.names(""); err != nil {
		return err
	}
	switch name, err := nameOf(s.f.top, f.inode); {
	case err != nil || name == "":
		return coded(folderName, err) // another process has just removed it
	case len(s.names) > 0 && s.f.twin:
		return foreign("", "lies on "+s.v.Source+", whose UUID another device has, too: one is a block-wise copy of the other, "+
			"and which of them this was made on cannot be told")
	case len(s.names) > 0:
		s.sets()
		return nil
	}
	ours, err := f.ours()
	if ours {
		s.found = append(s.found, &leftover{volume: s.v, folder: f.inode, member: btrfs.TopLevel})
	}
	return err
}

// sets goes through a folder that is not empty.
func (s *scan) sets() {
	sets := map[string]bool{}
	for _, name := range s.names {
		if set, ok := strings.CutSuffix(name, recordSuffix); ok && validID(set) {
			sets[set] = true
			s.record(set)
		}
	}
	for _, name := range s.names {
		set, isRecord := strings.CutSuffix(name, recordSuffix)
		if !sets[set] || !isRecord && name != set {
			s.errs = append(s.errs, foreign(name, "belongs to no set of ours"))
		}
	}
}

// record looks at one set.
func (s *scan) record(set string) {
	r, err := readRecord(s.folder, set, s.f.uuid)
	if err != nil {
		s.errs = append(s.errs, err)
		return
	}
	defer r.close()
	ok, gone, err := r.own()
	if err != nil {
		s.errs = append(s.errs, err)
	}
	if !ok || gone {
		return // its process lives, or has just removed it
	}
	ids := make([]uint64, 0, len(r.members))
	for id := range r.members {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if len(ids) == 0 {
		ids = append(ids, btrfs.TopLevel) // the record alone
	}
	for _, id := range ids {
		s.found = append(s.found, &leftover{volume: s.v, folder: s.folder.inode, set: set, member: id})
	}
	s.strangers(set, ids)
}

// strangers reports what is in the directory of a set and is not on record.
func (s *scan) strangers(set string, ids []uint64) {
	names, err := s.folder.names(set)
	if err != nil {
		s.errs = append(s.errs, err)
	}
	for _, name := range names {
		if !slices.ContainsFunc(ids, func(id uint64) bool { return fmt.Sprint(id) == name }) {
			s.errs = append(s.errs, foreign(set+"/"+name, "is not on record"))
		}
	}
}

// names lists a directory in the folder, or the folder itself.
func (f *folder) names(dir string) ([]string, error) {
	where := strings.TrimSuffix(folderName+"/"+dir, "/")
	if dir == "" {
		dir = "."
	}
	d, err := openMaybe(f.dir, dir)
	if d == nil || err != nil {
		return nil, coded(where, err)
	}
	defer d.Close()
	var names []string
	err = file.List(fd(d), make([]byte, 32<<10), func(name []byte, _ file.Kind, _ uint64) error {
		names = append(names, string(name))
		return nil
	})
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil // removed since it was opened
	}
	slices.Sort(names)
	return names, coded(where, err)
}

// A leftover is what a process that died left of one snapshot. What its set
// shares goes with the last one.
type leftover struct {
	volume volume.Volume // one of the same file system
	folder uint64        // its inode
	set    string        // "" for the empty folder alone
	member uint64
}

// ID is the set's and the volume's.
func (l *leftover) ID() string { return l.set + "/" + string(l.Volume()) }

// Volume is the one that the snapshot is of.
func (l *leftover) Volume() volume.ID {
	return volume.ID(fmt.Sprintf("%s/%d", l.volume.UUID, l.member))
}

// Parts is empty: a leftover is not shown.
func (l *leftover) Parts() []snapshot.Part { return nil }

// Gaps is empty.
func (l *leftover) Gaps() []snapshot.Gap { return nil }

// Root does not exist.
func (l *leftover) Root() string { return nowhere }

// Err is never nil: nobody watched a leftover.
func (l *leftover) Err() error {
	return problem.Newf(problem.SnapshotLost, l.ID(), "it is a leftover")
}

// Release removes the leftover as its process would have done.
func (l *leftover) Release(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.release(ctx); err != nil {
		return problem.New(problem.ReleaseFailed, l.ID(), err)
	}
	return nil
}

func (l *leftover) release(ctx context.Context) error {
	f, err := openTop(l.volume)
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.writable(); err != nil {
		return err
	}
	if f.twin {
		return foreign("", "another device has the UUID of "+l.volume.Source+", too")
	}
	if f.folder, err = findFolder(f.top, l.folder); f.folder == nil || err != nil {
		return err
	}
	if l.set == "" {
		return removeFolder(ctx, f.top, f.folder)
	}
	if f.record, err = readRecord(f.folder, l.set, f.uuid); err != nil {
		if errors.Is(err, syscall.ENOENT) {
			return nil // done by another one
		}
		return err
	}
	switch ok, gone, err := f.record.own(); {
	case err != nil:
		return err
	case gone:
		return nil
	case !ok:
		return problem.Newf(problem.Busy, l.set, "another process is at it")
	}
	if err := f.remove(l.member, l.set); err != nil {
		return err
	}
	left, err := f.folder.names(l.set)
	if err != nil || f.record.expects(left) {
		return err
	}
	return f.removeSet(ctx, l.set)
}

// expects tells whether any of these names in a set's directory is on record.
func (r *record) expects(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		for id := range r.members {
			if fmt.Sprint(id) == name {
				return true
			}
		}
		return false
	})
}
