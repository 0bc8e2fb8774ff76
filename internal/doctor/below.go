package doctor

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"

	"stillpoint/internal/sys/file"
)

// listed is how many names of a directory are read at once: it may have millions.
const listed = 1024

// open opens a file of the selection for reading, if it is of that kind. Whoever
// owns a directory in it may put there what he likes at any time, and we are
// root: no symbolic link below what was selected is followed, and nothing is
// opened that waits or does something when it is, as FIFOs and devices do.
func (s Subject) open(path string, kind file.Kind) (*os.File, error) {
	root, rel := s.rootOf(path)
	place, err := file.OpenBeneath(root, rel)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close(place) }()
	info, err := file.Stat(place, "", file.Itself)
	if err != nil {
		return nil, err
	}
	if info.Kind != kind {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrInvalid}
	}
	fd, err := file.Reopen(place, file.Read|file.Prompt)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// rootOf returns the directory from which on no links are followed to path, and
// the way from there. A selected path itself has been resolved.
func (s Subject) rootOf(path string) (root, rel string) {
	for _, p := range s.Paths {
		if p != path && within(p, path) {
			rel, err := filepath.Rel(p, path)
			if err == nil {
				return p, rel
			}
		}
	}
	if path == "/" {
		return path, "."
	}
	return filepath.Dir(path), filepath.Base(path)
}

// list calls each with the names in a directory of the selection, some at a time,
// until it returns false or the time is over. What cannot be read, a backup names.
func (s Subject) list(ctx context.Context, dir string, each func(d *os.File, names []fs.DirEntry) bool) {
	d, err := s.open(dir, file.Folder)
	if err != nil {
		return
	}
	defer d.Close()
	for ctx.Err() == nil {
		names, err := d.ReadDir(listed)
		if !each(d, names) || err != nil {
			return
		}
	}
}
