package sqlite

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/sys/file"
)

// A finding is a Discover under way. It looks below one path after the other, so
// that what several lead to is known by the first.
type finding struct {
	mu    sync.Mutex
	seen  map[inode]bool // directories
	found map[inode]hit
}

type inode struct{ device, number uint64 }

func of(i file.Info) inode { return inode{i.Device, i.Inode} }

// A hit is a database by one of its names.
type hit struct {
	path   string
	order  int // of the path that it was found below
	header header
}

// below looks below one path.
func (f *finding) below(ctx context.Context, order int, root string) error {
	info, err := file.Stat(file.Here, root, file.NoFollow)
	if err != nil {
		return ignoreGone(named(root, err))
	}
	if made, err := ofKernel(root); made || err != nil {
		return ignoreGone(err)
	}
	s := f.search(ctx, order, root, info.Device)
	defer s.known.close()
	switch info.Kind {
	case file.Folder:
		s.folders(folder{root, info.Mount})
	case file.Regular:
		s.file(file.Here, root, root, info)
		for _, end := range besides {
			if _, err := file.Stat(file.Here, root+end, file.NoFollow); err == nil {
				s.used(file.Here, root, root)
			}
		}
	}
	return s.result()
}

func (f *finding) search(ctx context.Context, order int, root string, device uint64) *search {
	return &search{finding: f, ctx: ctx, root: root, order: order, device: device, free: make(chan struct{}, others()),
		known: known{ctx: ctx, root: root, device: device, began: time.Now(), no: numbers{}}}
}

// enter tells whether nobody has been in a directory before.
func (f *finding) enter(key inode) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.seen[key]
	f.seen[key] = true
	return !was
}

// named gives an error the whole path.
func named(path string, err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return &fs.PathError{Op: p.Op, Path: path, Err: p.Err}
	}
	return err
}

// ignoreGone forgets the error of what has just been deleted.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ELOOP) {
		return nil
	}
	return err
}

// compare compares paths name by name.
func compare(a, b string) int {
	return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
}
