package backup

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/volume"
)

// nested plans the subvolumes of btrfs that are nested in what a source shows
// and are read live, as the btrfs provider does with its snapshots. Where they
// cannot be listed, which takes root, the reader meets them and names each.
func (p *plan) nested(s *source) {
	mounts := s.grafts
	var all []graft
	add := func(at *place, shown string) {
		if at.volume.Subvolume == nil || !p.live(at.volume.ID) {
			return
		}
		for _, sub := range subvolumes(shown, at.volume.Subvolume.ID) {
			live, ok := at.live(sub.path)
			id := volume.ID(fmt.Sprintf("%s/%d", path.Dir(string(at.volume.ID)), sub.id))
			switch {
			case !ok, at.volume.Subvolume.ID == btrfs.TopLevel && within(snapshot.Own, sub.path):
				continue
			case within(live, shown):
				at.part = id
				continue
			case !within(shown, live), inKept(all, live), hidden(mounts, shown, live):
				continue
			}
			v := volume.Volume{ID: id, Kind: volume.Local, FSType: at.volume.FSType, Device: at.volume.Device}
			g := graft{path: live, place: place{volume: v, rel: ".", point: live, root: "."}, within: at.volume.ID}
			if sub.kept {
				g.empty = true
				p.leftOut = append(p.leftOut, leftOut{live, "", "read-only snapshot of a subvolume"})
			}
			all = append(all, g)
		}
	}
	add(&s.place, s.path)
	for i := range mounts {
		if !mounts[i].empty {
			add(&mounts[i].place, mounts[i].path)
		}
	}
	s.grafts = append(mounts, all...)
}

// inKept tells whether path is nested in a subvolume that is left out.
func inKept(nested []graft, path string) bool {
	return slices.ContainsFunc(nested, func(g graft) bool { return g.empty && within(g.path, path) })
}

// hidden tells whether something mounted strictly below shown hides path.
func hidden(mounts []graft, shown, path string) bool {
	return slices.ContainsFunc(mounts, func(g graft) bool {
		return g.path != shown && within(shown, g.path) && within(g.path, path)
	})
}

// A subvolume is one that is nested in another one, however deep.
type subvolume struct {
	id   uint64
	path string // from the root of that one
	kept bool   // a read-only snapshot, which other programs keep as history
}

// subvolumes lists those nested in the subvolume of a directory, in the order
// of their paths. One that comes, goes or is moved meanwhile may be missing.
func subvolumes(dir string, of uint64) []subvolume {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	list, err := btrfs.List(f)
	if err != nil {
		return nil
	}
	byID := map[uint64]btrfs.Entry{}
	for _, e := range list {
		byID[e.ID] = e
	}
	paths := map[uint64]string{of: "."}
	var find func(id uint64) (string, error)
	find = func(id uint64) (string, error) {
		if p, known := paths[id]; known {
			return p, nil
		}
		e, there := byID[id]
		if !there {
			return "", fs.ErrNotExist // not nested in this one
		}
		outer, err := find(e.Within)
		if err != nil {
			return "", err
		}
		inner, err := btrfs.Path(f, e.Within, e.Dir)
		if err != nil {
			return "", err
		}
		paths[id] = path.Join(outer, inner, e.Name)
		return paths[id], nil
	}
	var all []subvolume
	for _, e := range list {
		if p, err := find(e.ID); err == nil && e.ID != of {
			all = append(all, subvolume{e.ID, p, e.ReadOnly && e.Parent != btrfs.UUID{}})
		}
	}
	slices.SortFunc(all, func(a, b subvolume) int { return strings.Compare(a.path, b.path) })
	return all
}

// isStub tells whether a live path is the empty directory that a snapshot of
// btrfs has in the place of a nested subvolume. There is nothing more to see.
func (s *source) isStub(path string) bool {
	at := s.place
	for _, g := range s.grafts {
		if within(g.path, path) {
			at = g.place
		}
	}
	fi, err := os.Lstat(path)
	if err != nil || at.volume.FSType != "btrfs" || inode(fi) != btrfs.StubInode {
		return false
	}
	// Its device is the one that mountinfo knows, not that of a subvolume.
	dev := fi.Sys().(*syscall.Stat_t).Dev
	return fmt.Sprintf("%d:%d", dev>>8&0xfff, dev&0xff|dev>>12&^0xff) == at.volume.Device
}
