package repository

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

// An Added is something that belongs into a tree and is not read with it: a
// tree that was stored before, or a file that is in memory. It takes the place
// of what the source shows at its path.
type Added struct {
	Path string // live, below the source's
	Tree *Tree  // stored before by the same Writer; nil for a file
	File *AddedFile
}

// An AddedFile is a file in memory.
type AddedFile struct {
	Content  []byte
	Mode     uint32 // permission bits
	UID, GID uint32
	Modified time.Time
}

// additions are those of one Store, by the directory that they are in.
type additions struct {
	in map[string][]Added

	mu   sync.Mutex
	used map[string]bool
}

func newAdditions(all []Added) *additions {
	a := &additions{in: map[string][]Added{}, used: map[string]bool{}}
	for _, add := range all {
		dir := filepath.Dir(add.Path)
		a.in[dir] = append(a.in[dir], add)
	}
	return a
}

// names adds those of a directory to its names, in order.
func (a *additions) names(d *tree.Dir, names []tree.Name) []tree.Name {
	if len(a.in) == 0 {
		return names
	}
	for _, add := range a.in[d.Path()] {
		n := tree.Name{Name: filepath.Base(add.Path), IsDir: add.Tree != nil && add.Tree.Root.Type == tree.Directory}
		names = slices.DeleteFunc(names, func(old tree.Name) bool { return old.Name == n.Name })
		at, _ := slices.BinarySearchFunc(names, n, func(x, y tree.Name) int {
			return order(x.IsDir, tree.StoredName(x.Name), y.IsDir, tree.StoredName(y.Name))
		})
		names = slices.Insert(names, at, n)
	}
	return names
}

// record returns that of an addition, nil where there is none.
func (a *additions) record(ctx context.Context, s *storing, d *tree.Dir, name, stored string) (*Record, error) {
	if len(a.in) == 0 {
		return nil, nil
	}
	for _, add := range a.in[d.Path()] {
		if filepath.Base(add.Path) != name {
			continue
		}
		a.mu.Lock()
		a.used[add.Path] = true
		a.mu.Unlock()
		if add.Tree != nil {
			r := add.Tree.Root
			r.Name, r.stored = name, stored
			return &r, nil
		}
		return add.File.store(ctx, s, d.Volume(), name, stored)
	}
	return nil, nil
}

func (f *AddedFile) store(ctx context.Context, s *storing, volume, name, stored string) (*Record, error) {
	r := &Record{Entry: tree.Entry{
		Name: name, Type: tree.File, Mode: f.Mode, UID: f.UID, GID: f.GID,
		Size: int64(len(f.Content)), Modified: f.Modified, Changed: f.Modified, Links: 1,
	}, stored: stored}
	var err error
	if r.Object, err = s.bytes(ctx, f.Content); err != nil {
		return nil, err
	}
	n := s.w.p.Volume(volume)
	n.Files.Add(1)
	n.Bytes.Add(r.Size)
	return r, nil
}

// unused tells of those whose directory did not come.
func (a *additions) unused(tell func(path string, err error)) {
	for dir, all := range a.in {
		for _, add := range all {
			if !a.used[add.Path] {
				tell(add.Path, problem.Newf(problem.FileVanished, "", "the directory that it belongs into, %s, is not in the backup", dir))
			}
		}
	}
}
