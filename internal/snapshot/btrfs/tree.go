package btrfs

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/mount"
)

// A tree is all subvolumes of a file system.
type tree struct {
	nodes map[uint64]*node
}

// A node is a subvolume and what is nested in it.
type node struct {
	btrfs.Entry
	rel      string // path in the subvolume that holds it; "" where that is too deep
	within   *node  // that one; nil for the top level
	children []*node
}

// readTree lists all subvolumes, and where they are.
func readTree(top *os.File) (*tree, error) {
	// A directory may be gone by the time that its path is asked for.
	for try := 0; ; try++ {
		t, err := tryTree(top)
		if !errors.Is(err, syscall.ENOENT) || try == 9 {
			return t, err
		}
	}
}

func tryTree(top *os.File) (*tree, error) {
	list, err := btrfs.List(top)
	if err != nil {
		return nil, err
	}
	paths := make([]string, len(list))
	for i, e := range list {
		dir, err := btrfs.Path(top, e.Within, e.Dir)
		if errors.Is(err, syscall.ENAMETOOLONG) {
			continue // of no use to anybody, and no reason to fail
		}
		if err != nil {
			return nil, err
		}
		paths[i] = path.Join(dir, e.Name)
	}
	return newTree(list, paths), nil
}

// newTree builds a tree of subvolumes and their paths in those that hold them.
func newTree(list []btrfs.Entry, paths []string) *tree {
	t := &tree{nodes: map[uint64]*node{btrfs.TopLevel: {Entry: btrfs.Entry{ID: btrfs.TopLevel}}}}
	for i, e := range list {
		t.nodes[e.ID] = &node{Entry: e, rel: paths[i]}
	}
	for _, e := range list {
		n := t.nodes[e.ID]
		if n.within = t.nodes[e.Within]; n.within != nil {
			n.within.children = append(n.within.children, n)
		}
	}
	for _, n := range t.nodes {
		slices.SortFunc(n.children, func(a, b *node) int { return strings.Compare(a.rel, b.rel) })
	}
	return t
}

// ours tells whether n hangs in the folder of this provider's snapshots.
func (n *node) ours() bool {
	return n.Within == btrfs.TopLevel && below(folderName, n.rel)
}

// deep tells whether n is in so many directories that it has no path. It, and
// what is nested in it, is not planned; the snapshot of what holds it then says
// that there is a gap.
func (n *node) deep() bool { return n.rel == "" && n.ID != btrfs.TopLevel }

// kept tells whether n is what other programs keep as history: a read-only
// snapshot, of snapper, timeshift, btrbk and the like.
func (n *node) kept() bool { return n.ReadOnly && n.Parent != btrfs.UUID{} }

// open opens the root of n, going down from the top level, and makes sure that
// it is n.
func (n *node) open(top *os.File) (*os.File, error) {
	if n.deep() {
		return nil, problem.Newf(problem.SnapshotFailed, n.Name, "it is in too many directories")
	}
	if n.within == nil {
		return mount.OpenBelow(top, ".")
	}
	outer, err := n.within.open(top)
	if err != nil {
		return nil, err
	}
	defer outer.Close()
	f, err := mount.OpenBelow(outer, n.rel)
	if err != nil {
		return nil, err
	}
	s, err := btrfs.Ask(f)
	if err == nil && s.ID != n.ID {
		err = problem.Newf(problem.VolumeLost, n.rel, "another subvolume is there by now")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// A place is a subvolume at a path.
type place struct {
	*node
	at       string // from the root of the target
	required bool   // it holds a selected path
}

// plan finds out what has to be taken so that the selected paths of the
// subvolume n can be shown: the subvolumes that hold them, and all that are
// nested below them, but for what other programs keep.
func (n *node) plan(paths []string) []place {
	p := planner{places: map[uint64]place{}}
	owners := make([]place, len(paths))
	for i, selected := range paths {
		owners[i] = n.owner(".", selected)
		owners[i].required = true
		p.places[owners[i].ID] = owners[i]
	}
	for i, selected := range paths {
		p.nested(owners[i], selected)
	}
	var all []place
	for _, pl := range p.places {
		all = append(all, pl)
	}
	slices.SortFunc(all, func(a, b place) int { return strings.Compare(a.at, b.at) })
	return all
}

// owner is the innermost subvolume that holds a selected path.
func (n *node) owner(at, selected string) place {
	for _, c := range n.children {
		if !c.ours() && !c.deep() && below(path.Join(at, c.rel), selected) {
			return c.owner(path.Join(at, c.rel), selected)
		}
	}
	return place{node: n, at: at}
}

type planner struct{ places map[uint64]place }

func (p *planner) nested(pl place, selected string) {
	for _, c := range pl.children {
		at := path.Join(pl.at, c.rel)
		if c.ours() || c.deep() || !below(selected, at) {
			continue
		}
		_, wanted := p.places[c.ID]
		if c.kept() && !wanted {
			continue
		}
		if !wanted {
			p.places[c.ID] = place{node: c, at: at}
		}
		p.nested(place{node: c, at: at}, selected)
	}
}

// below tells whether a clean relative path is dir or lies below it.
func below(dir, p string) bool {
	return dir == "." || p == dir || strings.HasPrefix(p, dir+"/")
}

// clean checks the paths of a target.
func clean(t snapshot.Target) ([]string, error) {
	var paths []string
	for _, p := range t.Paths {
		c := path.Clean(p)
		if p == "" || path.IsAbs(p) || c == ".." || strings.HasPrefix(c, "../") {
			return nil, problem.Newf(problem.PathMissing, p, "is not a path within volume %s", t.Volume.ID)
		}
		if t.Volume.Subvolume.ID == btrfs.TopLevel && below(folderName, c) {
			return nil, problem.Newf(problem.PathMissing, p, "is where the snapshots themselves are kept")
		}
		paths = append(paths, c)
	}
	if len(paths) == 0 {
		return nil, problem.Newf(problem.PathMissing, string(t.Volume.ID), "no path of it is selected")
	}
	return paths, nil
}
