package tree

import (
	"sync"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// A Dir is a directory of a source. It may be used by several goroutines. It
// needs no descriptor of its own: what is open is bounded for the whole
// source.
type Dir struct {
	walk   *walk
	parent *Dir
	name   string // in the parent; of the root, the live path
	volume string
	grafts *graftPoint // nil: no graft below

	folder  *folder       // nil: shown as empty, unless
	direct  *directFolder // not nil, it is read directly
	mount   uint64
	listing sync.Mutex // of the position in the directory
}

// Path is the live path.
func (d *Dir) Path() string {
	if d.parent == nil {
		return d.name
	}
	var names []string
	size := 0
	for ; d.parent != nil; d = d.parent {
		names = append(names, d.name)
		size += len(d.name) + 1
	}
	p := make([]byte, 0, len(d.name)+size)
	if d.name != "/" {
		p = append(p, d.name...)
	}
	for i := len(names) - 1; i >= 0; i-- {
		p = append(append(p, '/'), names[i]...)
	}
	return string(p)
}

// Volume is the identity of the volume in which the directory lies.
func (d *Dir) Volume() string { return d.volume }

// Stat describes the entry name, all but its extended attributes, Target,
// Holes and those flags that only Complete or Content.Flags can tell. At a
// graft it describes the graft's root.
func (d *Dir) Stat(name string) (Entry, error) {
	at := livePath{d, name}
	if p, err := d.directAt(name); err != nil {
		return Entry{}, unshown(at, err)
	} else if p != nil {
		e, err := p.entry(name)
		if err != nil {
			err = unread(at, err)
		}
		return e, err
	}
	s, err := d.spot(name)
	if err != nil {
		return Entry{}, unread(at, err)
	}
	defer s.give()
	point := d.grafts.at(name)
	how := s.at | file.NoAutomount
	if point.emptied() {
		// What is mounted here is not wanted; its server may be gone.
		how |= file.Cached
	}
	info, err := file.Stat(s.dir, s.name, how)
	if err != nil {
		return Entry{}, unread(at, err)
	}
	if info.Kind != file.Folder && info.Mount != d.mount && point == nil {
		return Entry{}, problem.Newf(problem.FileUnreadable, at.String(), "something is mounted here that does not belong to the source")
	}
	e, err := entryOf(name, info)
	if err != nil {
		return Entry{}, unread(at, err)
	}
	return e, nil
}

// spot is where name is read, to be given back.
func (d *Dir) spot(name string) (spot, error) {
	if g := d.grafts.at(name).shown(); g != nil {
		return spotOfRoot(g.Root)
	}
	if d.folder == nil {
		return spot{}, errEmptied
	}
	fd, err := d.folder.take()
	return spot{dir: fd, name: name, at: file.NoFollow, folder: d.folder}, err
}

// OpenDir opens the directory name, or the graft that shows there. A file
// system that is mounted there without being a graft is not entered: the
// directory is empty then, and Source.Left is told.
func (d *Dir) OpenDir(name string) (*Dir, error) {
	child := &Dir{walk: d.walk, parent: d, name: name, volume: d.volume, grafts: d.grafts.at(name)}
	at := livePath{d, name}
	if child.grafts.emptied() {
		return child, nil
	}
	g := child.grafts.shown()
	if g != nil {
		child.volume = g.Volume
	}
	if p, err := d.directAt(name); err != nil {
		return nil, unshown(at, err)
	} else if p != nil {
		if child.direct, err = p.folder(); err != nil {
			return nil, unopened(at, err)
		}
		return child, nil
	}
	if g != nil {
		top, info, err := d.walk.folders.top(g.Root)
		if err != nil {
			return nil, unopened(at, err)
		}
		child.folder, child.mount = top, info.Mount
		return child, nil
	}
	if d.folder == nil {
		return child, nil
	}
	foreign, err := d.foreign(name)
	if err != nil {
		return nil, unread(at, err)
	}
	if foreign == "" {
		f, info, err := d.folder.child(name)
		if err != nil {
			return nil, unopened(at, err)
		}
		if d.owns(info) {
			child.folder, child.mount = f, info.Mount
			return child, nil
		}
		f.rest()
		foreign = mountedOver
	}
	d.walk.left(at.String(), foreign)
	return child, nil
}

const (
	mountedOver      = "another file system is mounted here that does not belong to the source"
	mountsOnDemand   = "a file system is mounted here on demand"
	nestedSubvolume  = "a nested subvolume is here that does not belong to the source"
	missingSubvolume = "a nested subvolume is here that the snapshot does not hold"
)

// emptySubvolume is the inode number of the empty directory that a snapshot of
// btrfs shows in place of a nested subvolume
// (linux/btrfs_tree.h: BTRFS_EMPTY_SUBVOL_DIR_OBJECTID).
const emptySubvolume = 2

// foreign says why the directory name is not entered, if so. It is asked
// before anything is opened, because that might mount something or wait for a
// server, which this does not.
func (d *Dir) foreign(name string) (string, error) {
	fd, err := d.folder.take()
	if err != nil {
		return "", err
	}
	defer d.folder.give()
	info, err := file.Stat(fd, name, file.NoFollow|file.NoAutomount|file.Cached)
	switch {
	case err != nil:
		return "", err
	case info.Kind != file.Folder:
		return "", nil // opening says what is wrong
	case info.Automount:
		return mountsOnDemand, nil
	case info.Mount != d.mount:
		return mountedOver, nil
	case info.Inode == emptySubvolume:
		if fs, err := file.FSType(fd); err != nil || fs == file.BtrfsFS {
			return missingSubvolume, err
		}
	}
	if !d.owns(info) {
		return nestedSubvolume, nil
	}
	return "", nil
}

// owns tells whether a directory lies in the same mount and the same volume.
// A subvolume of btrfs has its own device number without being a mount.
func (d *Dir) owns(i file.Info) bool {
	return i.Mount == d.mount && i.Device == d.folder.id.device
}

func (w *walk) left(path, reason string) {
	if w.source.Left != nil {
		w.source.Left(path, reason)
	}
}

// Close gives the directory's descriptor back. Directories below stay usable.
func (d *Dir) Close() error {
	if d.folder != nil && d.folder != d.walk.top {
		d.folder.rest()
	}
	return nil
}
