package tree

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/file"
)

// A Direct is a place in a snapshot that is read without a path: a value for
// Source.Direct and Graft.Direct, as long as its Reader is open.
type Direct struct {
	reader snapshot.Reader
	item   snapshot.Item
}

// DirectBeneath is Beneath in a snapshot: it finds rel, "." for the root of the
// volume.
func DirectBeneath(r snapshot.Reader, rel, live string) (*Direct, error) {
	i, err := r.Top()
	if err != nil {
		return nil, unshown(livePath{name: live}, err)
	}
	if rel != "." {
		for name := range strings.SplitSeq(rel, "/") {
			if i.Info.Kind != file.Folder {
				return nil, problem.Newf(problem.FileChanged, live, "a directory on the way there became something else")
			}
			if i, err = r.Lookup(i.Info.Inode, name); err != nil {
				break
			}
		}
	}
	switch {
	case err == nil:
		return &Direct{r, i}, nil
	case errors.Is(err, fs.ErrNotExist) && !problem.Is(err, problem.SnapshotLost):
		return nil, problem.New(problem.PathMissing, live, said(err))
	}
	return nil, unshown(livePath{name: live}, err)
}

// unshown is unread for what a Reader says. That the snapshot is lost is no
// matter of one file.
func unshown(at livePath, err error) error {
	if problem.Is(err, problem.SnapshotLost) {
		return err
	}
	return unread(at, err)
}

// entry describes the place under a name.
func (p *Direct) entry(name string) (Entry, error) { return entryOf(name, p.item.Info) }

// complete fills in what entry leaves out. Where there is content, Content.Flags
// tells the flags, as of any other file.
func (p *Direct) complete(e *Entry) {
	i := &p.item
	if e.Type == Symlink {
		e.Target, e.Size = i.Target, int64(len(i.Target))
	}
	e.XAttrs = nil
	for _, x := range i.XAttrs {
		if !isView(x.Name) {
			e.XAttrs = append(e.XAttrs, XAttr{x.Name, []byte(x.Value)})
		}
	}
	slices.SortFunc(e.XAttrs, func(a, b XAttr) int { return strings.Compare(a.Name, b.Name) })
	if e.Type == Directory || e.Type == File && e.Size == 0 {
		e.Flags |= Flags(i.Flags) & keptFlags
	}
}

// open opens the content.
func (p *Direct) open(e Entry, at livePath) (*Content, error) {
	switch {
	case e.Type != File:
		return nil, problem.Newf(problem.FileUnreadable, at.String(), "a %s has no content", e.Type)
	case p.item.Info.Kind != file.Regular || p.item.Info.Inode != e.Inode:
		return nil, unopened(at, errOtherFile)
	}
	c, err := p.reader.Open(p.item)
	if err != nil {
		return nil, unshown(at, err)
	}
	return &Content{fd: -1, direct: c, flags: Flags(p.item.Flags) & keptFlags, at: at, entry: e}, nil
}

// folder returns the directory that the place is.
func (p *Direct) folder() (*directFolder, error) {
	if p.item.Info.Kind != file.Folder {
		return nil, syscall.ENOTDIR
	}
	return &directFolder{reader: p.reader, number: p.item.Info.Inode}, nil
}

// A directFolder is a directory that is read through a Reader. It is asked for
// once, when something of it is first needed.
type directFolder struct {
	reader snapshot.Reader
	number uint64

	mu     sync.Mutex
	listed bool
	all    snapshot.Listing
	err    error
	chunks []chunk // of a large one, those last used
}

// A chunk is items in a row that were described together, as names come in about
// their order.
type chunk struct {
	from  int
	items []snapshot.Item
}

const (
	chunkSize = 512
	chunkMost = 4
)

// list returns what is in the directory.
func (f *directFolder) list() (snapshot.Listing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.listLocked()
}

func (f *directFolder) listLocked() (snapshot.Listing, error) {
	if !f.listed {
		f.listed = true
		f.all, f.err = f.reader.List(f.number)
	}
	return f.all, f.err
}

// find finds a name.
func (f *directFolder) find(name string) (*Direct, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all, err := f.listLocked()
	if err != nil {
		return nil, err
	}
	if len(all.Names) == 0 {
		n, ok := slices.BinarySearchFunc(all.Items, name, func(i snapshot.Item, name string) int { return strings.Compare(i.Name, name) })
		if !ok {
			return nil, syscall.ENOENT
		}
		return &Direct{f.reader, all.Items[n]}, nil
	}
	n, ok := slices.BinarySearchFunc(all.Names, name, func(n snapshot.Name, name string) int { return strings.Compare(n.Name, name) })
	if !ok {
		return nil, syscall.ENOENT
	}
	i, err := f.describe(n)
	return &Direct{f.reader, i}, err
}

// describe describes a name, and its neighbours of the same kind with it, for
// those who come next: directories come first.
func (f *directFolder) describe(n int) (snapshot.Item, error) {
	isFolder := func(n snapshot.Name) bool { return n.Kind == file.Folder }
	from := n / chunkSize * chunkSize
	for _, c := range f.chunks {
		if c.from == from && c.items[n-from].Info.Inode != 0 {
			return c.items[n-from], nil
		}
	}
	row := f.all.Names[from:min(from+chunkSize, len(f.all.Names))]
	var numbers []uint64
	for _, name := range row {
		if isFolder(name) == isFolder(f.all.Names[n]) {
			numbers = append(numbers, name.Inode)
		}
	}
	described, err := f.reader.Describe(numbers)
	if err != nil {
		return snapshot.Item{}, err
	}
	c := chunk{from, make([]snapshot.Item, len(row))}
	for k, name := range row {
		if isFolder(name) == isFolder(f.all.Names[n]) {
			c.items[k], described = described[0], described[1:]
			c.items[k].Name = name.Name
		}
	}
	f.chunks = append(f.chunks, c)
	if len(f.chunks) > chunkMost {
		f.chunks = slices.Delete(f.chunks, 0, 1)
	}
	return c.items[n-from], nil
}

// directAt is the place of a name that is read directly; nil where it is not.
func (d *Dir) directAt(name string) (*Direct, error) {
	g := d.grafts.at(name).shown()
	switch {
	case g != nil:
		return g.Direct, nil
	case d.direct == nil:
		return nil, nil
	}
	return d.direct.find(name)
}
