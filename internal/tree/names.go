package tree

import (
	"slices"
	"strings"
	"sync"

	"stillpoint/internal/sys/file"
)

// A Name is an entry of a directory, by its name alone: a directory may hold
// a million.
type Name struct {
	Name  string
	IsDir bool
}

// Names lists the directory: directories first, then all others, each in the
// bytewise order of StoredName. What Source.Leave leaves out is not among
// them. Together with an error come the names that could be read.
func (d *Dir) Names() ([]Name, error) {
	if d.direct != nil {
		return d.directNames()
	}
	if d.folder == nil {
		return nil, nil
	}
	fd, err := d.folder.take()
	if err != nil {
		return nil, unread(livePath{name: d.Path()}, err)
	}
	defer d.folder.give()
	d.listing.Lock()
	defer d.listing.Unlock()

	l := d.lister(fd)
	buf := listBuffers.Get().(*[]byte)
	defer listBuffers.Put(buf)
	if err = file.List(fd, *buf, l.add); err == nil {
		err = l.addHidden()
	}
	if err != nil {
		err = unread(livePath{name: d.Path()}, err)
	}
	sortNames(l.names)
	return l.names, err
}

func (d *Dir) lister(fd int) *lister {
	l := &lister{dir: d, fd: fd}
	if d.walk.source.Leave != nil || d.grafts != nil {
		l.path = d.Path()
	}
	return l
}

// directNames is Names for one that is read directly, where kinds are known.
func (d *Dir) directNames() ([]Name, error) {
	all, err := d.direct.list()
	if err != nil {
		return nil, unshown(livePath{name: d.Path()}, err)
	}
	l := d.lister(-1)
	for i := range all.Items {
		l.sort(all.Items[i].Name, all.Items[i].Info.Kind, all.Items[i].Info.Inode)
	}
	for _, n := range all.Names {
		l.sort(n.Name, n.Kind, n.Inode)
	}
	if err := l.addHidden(); err != nil {
		return nil, unread(livePath{name: d.Path()}, err)
	}
	sortNames(l.names)
	return l.names, nil
}

const listBuffer = 64 << 10

var listBuffers = sync.Pool{New: func() any { b := make([]byte, listBuffer); return &b }}

type lister struct {
	dir   *Dir
	fd    int
	path  string // live path of dir, where it is needed
	text  strings.Builder
	names []Name
	seen  map[string]bool // points of grafts
}

func (l *lister) add(raw []byte, kind file.Kind, inode uint64) error {
	name := l.keep(raw)
	if kind == file.Unknown {
		info, err := file.Stat(l.fd, name, file.NoFollow|file.NoAutomount)
		if err != nil {
			return nil // whoever asks for it gets the reason
		}
		kind = info.Kind
	}
	l.sort(name, kind, inode)
	return nil
}

// sort puts a name where it belongs: among the names, or to what is left out.
func (l *lister) sort(name string, kind file.Kind, inode uint64) {
	point := l.dir.grafts.at(name)
	if point == nil {
		l.addUnlessLeft(name, kind, inode, l.dir.volume)
		return
	}
	if l.seen == nil {
		l.seen = map[string]bool{}
	}
	l.seen[name] = true
	switch g := point.shown(); {
	case g != nil:
		l.addGraft(name, g)
	case point.emptied() && kind != file.Folder:
		l.dir.walk.left(joined(l.path, name), "something is mounted over this file")
	default:
		l.addUnlessLeft(name, kind, inode, l.dir.volume)
	}
}

// keep makes a string of raw, many of them in one piece of memory.
func (l *lister) keep(raw []byte) string {
	if l.text.Cap()-l.text.Len() < len(raw) {
		size := min(max(2*l.text.Cap(), 512), 64<<10)
		l.text = strings.Builder{}
		l.text.Grow(size)
	}
	start := l.text.Len()
	l.text.Write(raw)
	return l.text.String()[start:]
}

// addHidden adds grafts whose place the directory does not show, and tells
// about those further below that cannot be reached.
func (l *lister) addHidden() error {
	if l.dir.grafts == nil {
		return nil
	}
	for name, point := range l.dir.grafts.below {
		switch g := point.shown(); {
		case l.seen[name]:
		case g != nil:
			l.addGraft(name, g)
		default:
			point.each(joined(l.path, name), func(path string) {
				l.dir.walk.left(path, "the directory that leads there is missing")
			})
		}
	}
	return nil
}

func (l *lister) addGraft(name string, g *Graft) {
	kind, inode := file.Folder, uint64(0)
	if g.Direct != nil {
		kind, inode = g.Direct.item.Info.Kind, g.Direct.item.Info.Inode
	} else if s, err := spotOfRoot(g.Root); err == nil {
		if info, err := file.Stat(s.dir, s.name, s.at); err == nil {
			kind, inode = info.Kind, info.Inode
		}
	}
	l.addUnlessLeft(name, kind, inode, g.Volume)
}

func (l *lister) addUnlessLeft(name string, kind file.Kind, inode uint64, volume string) {
	if leave := l.dir.walk.source.Leave; leave != nil {
		path := joined(l.path, name)
		t, _ := typeOf(kind)
		if reason := leave(path, &Entry{Name: name, Type: t, Inode: inode}, volume); reason != "" {
			l.dir.walk.left(path, reason)
			return
		}
	}
	l.names = append(l.names, Name{Name: name, IsDir: kind == file.Folder})
}

// sortNames makes the stored form only where it differs, and then once.
func sortNames(names []Name) {
	stored := map[string]string{}
	for _, n := range names {
		if !storedAsIs(n.Name) {
			stored[n.Name] = StoredName(n.Name)
		}
	}
	key := func(n Name) string { return n.Name }
	if len(stored) > 0 {
		key = func(n Name) string {
			if s, ok := stored[n.Name]; ok {
				return s
			}
			return n.Name
		}
	}
	slices.SortFunc(names, func(a, b Name) int {
		switch {
		case a.IsDir && !b.IsDir:
			return -1
		case b.IsDir && !a.IsDir:
			return 1
		}
		return strings.Compare(key(a), key(b))
	})
}
