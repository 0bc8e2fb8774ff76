package tree

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// typeOf names a kind; false for what is none.
func typeOf(k file.Kind) (Type, bool) {
	switch k {
	case file.Regular:
		return File, true
	case file.Folder:
		return Directory, true
	case file.Symlink:
		return Symlink, true
	case file.FIFO:
		return FIFO, true
	case file.Character:
		return Char, true
	case file.Block:
		return Block, true
	case file.Socket:
		return Socket, true
	}
	return "", false
}

func entryOf(name string, i file.Info) (Entry, error) {
	t, ok := typeOf(i.Kind)
	if !ok {
		return Entry{}, fmt.Errorf("unknown type of file %#o", i.Kind)
	}
	e := Entry{
		Name:     name,
		Type:     t,
		Mode:     i.Mode,
		UID:      i.UID,
		GID:      i.GID,
		Modified: i.Modified,
		Changed:  i.Changed,
		Inode:    i.Inode,
		Links:    i.Links,
	}
	switch t {
	case File:
		e.Size, e.Blocks = i.Size, i.Blocks
		e.Flags = Flags(i.Flags) & keptFlags
	case Directory:
		e.Flags = Flags(i.Flags) & keptFlags
	case Symlink:
		e.Size = i.Size
	case Char, Block:
		e.Device = i.Node
	}
	return e, nil
}

// Complete adds what Stat leaves out: extended attributes, the target of a
// symbolic link, and all flags of directories and of empty files (those of
// other files are Content.Flags, for they are opened anyway). What could not
// be read is in the error with the code attribute-unread, and the entry is
// good but for that; with every other code it is not.
//
// A directory that OpenDir leaves empty has nothing of this: it is another's.
func (d *Dir) Complete(e *Entry) error {
	at := livePath{d, e.Name}
	if p, err := d.directAt(e.Name); err != nil {
		return unshown(at, err)
	} else if p != nil {
		p.complete(e)
		return nil
	}
	if e.Type == Directory && d.folder != nil && d.grafts.at(e.Name).shown() == nil {
		if foreign, err := d.foreign(e.Name); foreign != "" || err != nil {
			return unreadOrNil(at, err)
		}
	}
	s, err := d.spot(e.Name)
	if err != nil {
		return unread(at, err)
	}
	defer s.give()
	return d.walk.complete(e, s, at)
}

func (w *walk) complete(e *Entry, s spot, at livePath) error {
	if e.Type == Symlink {
		target, err := s.readlink()
		if errors.Is(err, syscall.EINVAL) {
			return problem.New(problem.FileChanged, at.String(), said(err))
		}
		if err != nil {
			return unread(at, err)
		}
		e.Target, e.Size = target, int64(len(target))
	}
	err := w.readXattrs(e, s)
	if isOneOf(err, syscall.ENOENT, syscall.ESTALE) {
		return unread(at, err)
	}
	if e.Type == Directory || e.Type == File && e.Size == 0 {
		err = join(err, w.readFlags(e, s))
	}
	if err != nil {
		return problem.New(problem.AttributeUnread, at.String(), err)
	}
	return nil
}

// readXattrs reads all that can be set again.
func (w *walk) readXattrs(e *Entry, s spot) error {
	e.XAttrs = nil
	names, err := w.xattrs.List(s.dir, s.name, s.at)
	switch {
	case errors.Is(err, syscall.EOPNOTSUPP):
		return nil
	case err != nil:
		return fmt.Errorf("extended attributes: %w", said(err))
	}
	var errs []error
	for _, name := range names {
		if isView(name) {
			continue
		}
		value, err := w.xattrs.Get(s.dir, s.name, s.at, name)
		switch {
		case errors.Is(err, syscall.ENODATA): // removed just now
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", name, said(err)))
		default:
			e.XAttrs = append(e.XAttrs, XAttr{name, value})
		}
	}
	slices.SortFunc(e.XAttrs, func(a, b XAttr) int { return strings.Compare(a.Name, b.Name) })
	return join(errs...)
}

// isView tells extended attributes that only show something else: how network
// file systems present the ACL of their server, and how kernel and sockets
// describe themselves. btrfs.compression, system.ntfs_attrib and whatever else
// a local file system stores are kept.
func isView(name string) bool {
	for _, p := range []string{"system.nfs4_", "system.cifs_", "system.smb3_", "system.sockprotoname"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

func (w *walk) readFlags(e *Entry, s spot) error {
	open := w.openSeen
	if e.Type == Directory {
		open = w.openFolder
	}
	fd, err := open(*e, s)
	if err != nil {
		return fmt.Errorf("inode flags: %w", said(err))
	}
	flags, err := readFlags(fd)
	if err != nil {
		err = fmt.Errorf("inode flags: %w", said(err))
	}
	e.Flags |= flags
	return join(err, file.Close(fd))
}

// openFolder opens a directory; O_DIRECTORY opens nothing else.
func (w *walk) openFolder(_ Entry, s spot) (int, error) {
	return w.folders.openQuietly(s.dir, s.name, s.opening(file.Read|file.Directory))
}

// readFlags returns no flags where the file system has none.
func readFlags(fd int) (Flags, error) {
	flags, err := file.Flags(fd)
	if isOneOf(err, syscall.ENOTTY, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EINVAL) {
		return 0, nil
	}
	return Flags(flags) & keptFlags, err
}
