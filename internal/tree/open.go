package tree

import (
	"errors"
	"io/fs"
	"path"
	"sync/atomic"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// A Node is the root of a source: a directory, or a single file of any type.
type Node struct {
	Entry Entry // with all attributes
	Dir   *Dir  // nil unless it is a directory

	walk *walk
}

// walk is what all directories of one source share.
type walk struct {
	source  Source
	folders *descriptors
	top     *folder // in use until the end
	xattrs  file.Xattrs
	waited  atomic.Int64 // for leases, in ns
}

// Open opens a source. An Entry whose attributes could not all be read comes
// with an error that has the code attribute-unread; every other error comes
// without a Node.
func Open(source Source) (*Node, error) {
	w := &walk{source: source, folders: newDescriptors()}
	if source.Direct != nil {
		return w.openDirect(source.Direct)
	}
	at := livePath{name: source.Path}
	s, err := spotOfRoot(source.Root)
	if err != nil {
		return nil, rootUnread(source, err)
	}
	info, err := file.Stat(s.dir, s.name, s.at)
	if err != nil {
		return nil, rootUnread(source, err)
	}
	n := &Node{walk: w}
	if n.Entry, err = entryOf(path.Base(source.Path), info); err != nil {
		return nil, unread(at, err)
	}
	if n.Entry.Type == Directory {
		if n.Dir, err = w.root(info); err != nil {
			return nil, join(rootUnread(source, err), n.Close())
		}
	}
	err = w.complete(&n.Entry, s, at)
	if err != nil && problem.CodeOf(err) != problem.AttributeUnread {
		return nil, join(err, n.Close())
	}
	return n, err
}

// openDirect opens a source that is read directly.
func (w *walk) openDirect(p *Direct) (*Node, error) {
	e, err := p.entry(path.Base(w.source.Path))
	if err != nil {
		return nil, unread(livePath{name: w.source.Path}, err)
	}
	p.complete(&e)
	n := &Node{Entry: e, walk: w}
	if e.Type != Directory {
		return n, nil
	}
	f, err := p.folder()
	if err != nil {
		return nil, unopened(livePath{name: w.source.Path}, err)
	}
	n.Dir = &Dir{walk: w, name: w.source.Path, direct: f, volume: w.source.Volume, grafts: graftPoints(w.source.Path, w.source.Grafts)}
	return n, nil
}

func (w *walk) root(info file.Info) (*Dir, error) {
	top, opened, err := w.folders.top(w.source.Root)
	if err != nil {
		return nil, err
	}
	if top.id != identityOf(info) {
		return nil, errReplaced
	}
	if _, err := top.take(); err != nil {
		return nil, err
	}
	w.top = top
	return &Dir{
		walk:   w,
		name:   w.source.Path,
		folder: top,
		mount:  opened.Mount,
		volume: w.source.Volume,
		grafts: graftPoints(w.source.Path, w.source.Grafts),
	}, nil
}

// rootUnread differs from unread in that the user has named this path.
func rootUnread(source Source, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return problem.New(problem.PathMissing, source.Path, said(err))
	case errors.Is(err, fs.ErrPermission):
		return problem.New(problem.NotAllowed, source.Path, said(err))
	}
	return unread(livePath{name: source.Path}, err)
}

// OpenFile opens a root that is a regular file.
func (n *Node) OpenFile() (*Content, error) {
	at := livePath{name: n.walk.source.Path}
	if p := n.walk.source.Direct; p != nil {
		return p.open(n.Entry, at)
	}
	s, err := spotOfRoot(n.walk.source.Root)
	if err != nil {
		return nil, unread(at, err)
	}
	return n.walk.openFile(n.Entry, s, at)
}

// Close closes all directories of the source, those still in use as soon as
// their call returns. Contents stay open.
func (n *Node) Close() error {
	if n.walk.top != nil {
		n.walk.top.give()
		n.walk.top = nil
	}
	return n.walk.folders.close()
}
