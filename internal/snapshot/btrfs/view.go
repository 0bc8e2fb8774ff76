package btrfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/mount"
)

// A view is how a target is shown: the snapshots of its subvolumes mounted on
// each other, in the private mounts of the set.
type view struct {
	root  *os.File
	parts []snapshot.Part
	gaps  []snapshot.Gap
}

// show makes the view of t.
func (t *target) show() error {
	name := fmt.Sprint("target", t.index)
	at, err := t.set.directory(name)
	if err != nil {
		return err
	}
	defer at.Close()
	b := builder{t: t, name: name, known: t.members[0].fs.tree, captured: map[uint64]*member{}, found: map[uint64]bool{}}
	for _, m := range t.members {
		b.captured[m.id] = m
	}
	if err := b.base(at); err != nil {
		return err
	}
	t.view = b.view // so that Release ends it, too, when the rest fails
	if err := b.fill(); err != nil {
		return err
	}
	slices.SortFunc(b.parts, func(a, b snapshot.Part) int { return strings.Compare(a.Path, b.Path) })
	slices.SortFunc(b.gaps, func(a, b snapshot.Gap) int { return strings.Compare(a.Path, b.Path) })
	t.view = b.view
	fault.Point("btrfs:mounted")
	return nil
}

// A builder puts a view together. Where a nested subvolume belongs it does not
// take from the plan but from the snapshots, which say what hung where at the
// instant.
type builder struct {
	view
	t        *target
	name     string // of its directory in the Space
	known    *tree
	captured map[uint64]*member
	found    map[uint64]bool // subvolumes whose place was found
	ways     []*os.File      // the memory file systems that lead to parts
}

// base makes the root of the view: the snapshot of the volume, or where no
// selected path lies in that, an empty directory.
func (b *builder) base(at *os.File) (err error) {
	first := b.t.places[0]
	if first.at == "." {
		b.root, err = b.t.set.space.Graft(b.captured[first.ID].root, at, readOnly)
		return err
	}
	b.root, err = b.memory(at)
	return err
}

// shows tells whether there is a snapshot of n.
func (b *builder) shows(n *node) bool {
	m := b.captured[n.ID]
	return m != nil && m.gap == nil
}

// memory mounts an empty memory file system, writable for now.
func (b *builder) memory(at *os.File) (*os.File, error) {
	m, err := mount.Open("tmpfs", []mount.Option{{Key: "mode", Value: "0755"}, {Key: "size", Value: "16m"}}, mount.NoDevices|mount.NoSetUID|mount.NoExecute)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if err := b.t.set.space.Attach(m, at); err != nil {
		return nil, err
	}
	root, err := mount.OpenBelow(m, ".")
	if err != nil {
		return nil, err
	}
	b.ways = append(b.ways, root)
	return root, nil
}

// fill mounts all parts.
func (b *builder) fill() error {
	defer func() {
		for _, w := range b.ways {
			if w != b.root {
				w.Close()
			}
		}
	}()
	for _, pl := range b.t.places {
		switch {
		case pl.at == ".":
			if err := b.part(b.captured[pl.ID], "."); err != nil {
				return err
			}
		case pl.required && !b.shows(pl.within):
			// Nothing tells where it was at the instant but that it
			// was there when it was planned.
			free, err := b.way(pl.at)
			if err != nil {
				return err
			}
			if !free {
				b.found[pl.ID] = true
				b.gap(pl.at, problem.VolumeLate, "something else came to its place while the snapshot was taken")
				continue
			}
			if err := b.graft(b.captured[pl.ID], pl.at); err != nil {
				return err
			}
		}
	}
	for _, pl := range b.t.places {
		if pl.required && !b.found[pl.ID] {
			return problem.Newf(problem.VolumeLost, pl.at, "its place was not found")
		}
	}
	for _, w := range b.ways {
		if err := b.t.set.space.Restrict(w, readOnly); err != nil {
			return err
		}
	}
	return nil
}

// way makes sure that a path of directories leads to a part. Where it goes
// through a subvolume that is not captured, its directories are made in memory.
// It is not free where a snapshot has something else there, which would be
// hidden.
func (b *builder) way(at string) (free bool, err error) {
	for last := at; ; last = path.Dir(last) {
		f, err := mount.OpenBelow(b.root, last)
		switch {
		case errors.Is(err, syscall.ENOENT):
			continue
		case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
			return false, nil
		case err != nil:
			return false, err
		}
		defer f.Close()
		if ok, err := mount.Writable(f); err != nil {
			return false, err
		} else if !ok {
			st, err := file.Stat(fd(f), "", file.Itself)
			if err != nil || st.Inode != btrfs.StubInode {
				return false, err
			}
			if last == at {
				return true, nil
			}
			if _, err := b.memory(f); err != nil {
				return false, err
			}
		}
		return true, makePath(b.root, at)
	}
}

// graft mounts the snapshot m in the view.
func (b *builder) graft(m *member, at string) error {
	if m.gap != nil {
		b.gap(at, m.gap.Code, m.gap.Reason)
		return nil
	}
	on, err := mount.OpenBelow(b.root, at)
	if err != nil {
		return err
	}
	defer on.Close()
	g, err := b.t.set.space.Graft(m.root, on, readOnly)
	if err != nil {
		return err
	}
	g.Close()
	return b.part(m, at)
}

// part notes that m is mounted, and mounts what belongs below it.
func (b *builder) part(m *member, at string) error {
	b.found[m.id] = true
	b.parts = append(b.parts, snapshot.Part{Path: at, Volume: m.volume(), Taken: m.at.at})
	if m.id == btrfs.TopLevel {
		if err := b.hide(m.fs.folder, at); err != nil {
			return err
		}
	}
	holes, err := m.holes()
	if err != nil {
		return err
	}
	for _, h := range holes {
		if h.path == "" {
			b.gap(at, problem.SnapshotFailed, fmt.Sprintf("subvolume %d in it is in too many directories", h.id))
			continue
		}
		if err := b.hole(m, h, path.Join(at, h.path)); err != nil {
			return err
		}
	}
	return nil
}

// hide covers our own folder with an empty directory. Who can rename it could
// have done so before the instant; then nothing is covered.
func (b *builder) hide(f *folder, at string) error {
	on, err := openMaybe(b.root, path.Join(at, folderName))
	switch {
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP), err == nil && on == nil:
		return nil // something else, or nothing
	case err != nil:
		return err
	}
	defer on.Close()
	if st, err := file.Stat(fd(on), "", file.Itself); err != nil || st.Inode != f.inode {
		return err
	}
	empty, err := b.t.set.directory(b.name + "-empty")
	if err != nil {
		return err
	}
	defer empty.Close()
	g, err := b.t.set.space.Graft(empty, on, readOnly)
	if err != nil {
		return err
	}
	return g.Close()
}

// hole decides what is to be done about the empty directory that the snapshot
// of outer has in the place of a subvolume.
func (b *builder) hole(outer *member, h hole, at string) error {
	if outer.id == btrfs.TopLevel && below(folderName, h.path) {
		return nil
	}
	planned := outer.fs.tree.nodes[h.id] != nil
	switch {
	case slices.ContainsFunc(b.t.places, func(pl place) bool { return pl.required && pl.ID == h.id }):
	case slices.ContainsFunc(b.t.paths, func(p string) bool { return below(p, at) }):
	case !planned && slices.ContainsFunc(b.t.paths, func(p string) bool { return below(at, p) }):
	default:
		return nil // of no selected path
	}
	if m := b.captured[h.id]; m != nil {
		return b.graft(m, at)
	}
	n := b.known.nodes[h.id]
	if n == nil { // it came after the plan
		var err error
		if b.known, err = readTree(outer.fs.top); err != nil {
			return err
		}
		n = b.known.nodes[h.id]
	}
	switch {
	case n == nil:
		b.gap(at, problem.VolumeLate, "a subvolume came and went while the snapshot was taken")
	case n.kept():
		b.gap(at, "", "read-only snapshot of a subvolume")
	default:
		b.gap(at, problem.VolumeLate, "a subvolume came into being, or was moved here, while the snapshot was taken")
	}
	return nil
}

func (b *builder) gap(at string, code problem.Code, reason string) {
	b.gaps = append(b.gaps, snapshot.Gap{Path: at, Code: code, Reason: reason})
}

// A hole is the empty directory that a snapshot has where a subvolume hung.
type hole struct {
	id   uint64
	path string // in the snapshot; "" where it is too deep
}

// holes lists those of the snapshot m: what was known when it was planned, if
// it still is there, and what was added since.
func (m *member) holes() ([]hole, error) {
	stubs, err := btrfs.StubsSince(m.fs.top, m.snap.ID, m.fs.before)
	if err != nil {
		return nil, err
	}
	if n := m.fs.tree.nodes[m.id]; n != nil {
		for _, c := range n.children {
			stub, ok, err := btrfs.StubAt(m.fs.top, m.snap.ID, c.Dir, c.Index)
			if err != nil {
				return nil, err
			}
			if ok && !slices.Contains(stubs, stub) {
				stubs = append(stubs, stub)
			}
		}
	}
	var holes []hole
	for _, stub := range stubs {
		dir, err := btrfs.Path(m.fs.top, m.snap.ID, stub.Dir)
		if errors.Is(err, syscall.ENAMETOOLONG) {
			holes = append(holes, hole{id: stub.ID})
			continue
		}
		if err != nil {
			return nil, err
		}
		holes = append(holes, hole{stub.ID, path.Join(dir, stub.Name)})
	}
	slices.SortFunc(holes, func(a, b hole) int { return strings.Compare(a.path, b.path) })
	return holes, nil
}

// makePath makes the directories of a path below dir.
func makePath(dir *os.File, p string) error {
	name, rest, more := strings.Cut(p, "/")
	if err := file.MakeDirectory(fd(dir), name); err != nil && !errors.Is(err, syscall.EEXIST) {
		return err
	}
	if !more {
		return nil
	}
	next, err := mount.OpenBelow(dir, name)
	if err != nil {
		return err
	}
	defer next.Close()
	return makePath(next, rest)
}
