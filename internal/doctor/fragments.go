package doctor

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/extents"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/volume"
)

// What is looked at for fragmentation, and from which on it is named.
const (
	largestFiles = 8       // of the selection
	sizedNames   = 50_000  // among so many names
	manyPieces   = 1_000   // of a file
	smallPiece   = 1 << 20 // or larger ones do no harm
	mapRecords   = 200_000 // of the map of a volume
	leastFree    = 8 << 20 // of which it makes sense to speak
)

// Fragments looks whether large files of the selection, and the free space where
// cache files would be, are in many small pieces. Of a whole host it does not.
func Fragments(s Subject, caches []volume.Volume) Check {
	return Check{Name: "fragments", Limit: 2 * usualLimit, Look: func(ctx context.Context) ([]Finding, error) {
		var found []Finding
		looked := 0
		if s.whole() {
			caches = nil // to read the maps of all volumes of a host takes long
		}
		for _, v := range caches {
			f, bad, err := freeSpace(ctx, v)
			if errors.Is(err, extents.ErrNoMap) || errors.Is(err, extents.ErrUnsupported) {
				continue
			}
			if err != nil {
				return found, err
			}
			looked++
			if bad {
				found = append(found, f)
			}
		}
		for _, path := range largest(ctx, s) {
			n, bytes, err := s.pieces(path)
			if err != nil {
				continue // gone, or of a file system that does not tell
			}
			looked++
			if n >= manyPieces && bytes/uint64(n) < smallPiece {
				more := ""
				if n == extents.Most {
					more = " or more"
				}
				found = append(found, warned(problem.Fragmented, path, "is in %d pieces%s, of %d KiB on average", n, more, bytes/uint64(n)>>10).
					so("reading it takes long, and saving originals of it, too", "e4defrag or xfs_fsr it at a time without backups; a database: its own means (VACUUM FULL, OPTIMIZE TABLE)"))
			}
		}
		if looked == 0 {
			return none("nothing large was found that could tell"), ctx.Err()
		}
		if len(found) == 0 {
			found = append(found, fine("neither large files nor the free space for cache files are in many small pieces"))
		}
		return found, nil
	}}
}

// freeSpace is about what is free on a volume.
func freeSpace(ctx context.Context, v volume.Volume) (f Finding, bad bool, err error) {
	root, err := os.Open(at(v))
	if err != nil {
		return f, false, err
	}
	defer root.Close()
	space, err := extents.Free(ctx, root, mapRecords)
	if err != nil || space.Bytes < leastFree || space.Large >= space.Bytes/2 {
		return f, false, err
	}
	return warned(problem.Fragmented, at(v), "its free space is in %d pieces, of %d KiB on average", space.Pieces, space.Bytes/uint64(space.Pieces)>>10).
		so("a cache file there is written in small pieces, and so slowly that it may not keep up", "free more space there, or name another folder for cache files: --cache-dir"), true, nil
}

// pieces counts those of a file.
func (s Subject) pieces(path string) (n int, bytes uint64, err error) {
	f, err := s.open(path, file.Regular)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	return extents.Of(f)
}

// largest finds the largest files of a selection, among the first names of it.
func largest(ctx context.Context, s Subject) (paths []string) {
	if s.whole() {
		return nil // nobody said which files
	}
	ctx, cancel := context.WithTimeout(ctx, usualLimit)
	defer cancel()
	var top sizes
	seen := 0
	for _, path := range s.Entered() {
		if i, err := file.Stat(file.Here, path, file.NoFollow|file.NoAutomount); err == nil && i.Kind == file.Regular {
			top.add(path, i.Size)
		}
	}
	for dirs := s.Entered(); len(dirs) > 0 && seen <= sizedNames && ctx.Err() == nil; {
		dir := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		s.list(ctx, dir, func(d *os.File, names []fs.DirEntry) bool {
			seen += len(names)
			for _, e := range names {
				path := filepath.Join(dir, e.Name())
				switch {
				case !s.holds(path) || s.foreign(path):
				case e.IsDir():
					dirs = append(dirs, path)
				case e.Type().IsRegular():
					if i, err := file.Stat(int(d.Fd()), e.Name(), file.NoFollow|file.NoAutomount); err == nil {
						top.add(path, i.Size)
					}
				}
			}
			return seen <= sizedNames
		})
	}
	for _, f := range top.largest() {
		paths = append(paths, f.path)
	}
	return paths
}

// sizes are files, the largest of them kept.
type sizes []sized

type sized struct {
	path string
	size int64
}

func (s *sizes) add(path string, size int64) {
	*s = append(*s, sized{path, size})
	if len(*s) > 4*largestFiles {
		*s = s.largest()
	}
}

func (s sizes) largest() sizes {
	slices.SortFunc(s, func(a, b sized) int { return cmp.Compare(b.size, a.size) })
	return s[:min(len(s), largestFiles)]
}
