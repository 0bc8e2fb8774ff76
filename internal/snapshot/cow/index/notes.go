package index

import (
	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/sys/inode"
)

// Notes are what changed since it was looked at.
type notes struct {
	names  map[uint64]map[string]struct{} // names by directory
	inodes map[inode.Handle]struct{}      // attributes; also of what is not in the index
	opened map[inode.Handle]struct{}      // to be looked at under the freeze only
	count  int                            // of names
}

func newNotes() notes {
	return notes{
		names:  map[uint64]map[string]struct{}{},
		inodes: map[inode.Handle]struct{}{},
		opened: map[inode.Handle]struct{}{},
	}
}

// len is how much is to be looked at.
func (n *notes) len() int { return n.count + len(n.inodes) }

// note takes one change. Inodes are noted whether they are in the table or not:
// one may have been looked at for the first time before the change, and get
// there only after it is read.
func (n *notes) note(t *table, c *fanotify.Change) {
	if c.Mask&fanotify.Names != 0 {
		n.name(t, c.Dir, c.Name)
		n.name(t, c.NewDir, c.NewName)
	}
	if c.Mask&^(fanotify.Opened|fanotify.OfDirectory) != 0 {
		n.inode(c.Target)
	}
	if c.Mask&fanotify.Opened != 0 && c.Mask&fanotify.OfDirectory == 0 && !c.Target.IsZero() {
		n.opened[c.Target] = struct{}{}
	}
}

// name notes a name, and the directory, whose times have moved. A directory
// that is not in the table is read only after it has got there, so after the
// change; the same goes for a later one with the number of an earlier one.
func (n *notes) name(t *table, dir inode.Handle, name []byte) {
	if dir.IsZero() {
		return
	}
	n.inode(dir)
	if !t.holds(dir) {
		return
	}
	names := n.names[dir.Number()]
	if names == nil {
		names = map[string]struct{}{}
		n.names[dir.Number()] = names
	}
	if _, known := names[string(name)]; !known {
		names[string(name)] = struct{}{}
		n.count++
	}
}

func (n *notes) inode(h inode.Handle) {
	if !h.IsZero() {
		n.inodes[h] = struct{}{}
	}
}

// prune drops what concerns nothing in the table. No look may be under way, or
// the one that puts it there might be older than the change.
func (n *notes) prune(t *table) {
	for h := range n.inodes {
		if !t.holds(h) {
			delete(n.inodes, h)
		}
	}
}

// join adds notes that were taken before.
func (n *notes) join(m notes) {
	for dir, names := range m.names {
		have := n.names[dir]
		if have == nil {
			n.names[dir] = names
			n.count += len(names)
			continue
		}
		for name := range names {
			if _, known := have[name]; !known {
				have[name] = struct{}{}
				n.count++
			}
		}
	}
	for h := range m.inodes {
		n.inodes[h] = struct{}{}
	}
	for h := range m.opened {
		n.opened[h] = struct{}{}
	}
}
