package snapshottest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/file"
)

// Reader reads the copy, with a flaw.
func (s *flawedSnapshot) Reader(context.Context) (snapshot.Reader, error) {
	if s.set.p.f.item == nil {
		return nil, errors.ErrUnsupported
	}
	return &dirReader{root: s.Snapshot.Root(), item: s.set.p.f.item, paths: map[uint64]string{}}, nil
}

// A dirReader is a Reader of a directory.
type dirReader struct {
	root string
	item func(i *snapshot.Item)

	mu    sync.Mutex
	paths map[uint64]string
}

func (r *dirReader) look(path, name string) (snapshot.Item, error) {
	info, err := file.Stat(file.Here, path, file.NoFollow)
	if err != nil {
		return snapshot.Item{}, err
	}
	i := snapshot.Item{Name: name, Info: info, Handle: path}
	if info.Kind == file.Symlink {
		if i.Target, err = os.Readlink(path); err != nil {
			return i, err
		}
	}
	var x file.Xattrs
	names, err := x.List(file.Here, path, file.NoFollow)
	for _, n := range names {
		v, err := x.Get(file.Here, path, file.NoFollow, n)
		if err != nil {
			return i, err
		}
		i.XAttrs = append(i.XAttrs, snapshot.XAttr{Name: n, Value: string(v)})
	}
	r.item(&i)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paths[info.Inode] = path
	return i, err
}

func (r *dirReader) path(number uint64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.paths[number]
}

func (r *dirReader) Top() (snapshot.Item, error) { return r.look(r.root, "") }

func (r *dirReader) Lookup(dir uint64, name string) (snapshot.Item, error) {
	return r.look(filepath.Join(r.path(dir), name), name)
}

func (r *dirReader) List(dir uint64) (l snapshot.Listing, err error) {
	names, err := os.ReadDir(r.path(dir))
	for _, n := range names {
		i, err := r.Lookup(dir, n.Name())
		if err != nil {
			return l, err
		}
		l.Items = append(l.Items, i)
	}
	return l, err
}

func (r *dirReader) Describe(numbers []uint64) (all []snapshot.Item, err error) {
	for _, n := range numbers {
		i, err := r.look(r.path(n), "")
		if err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	return all, nil
}

func (r *dirReader) Open(i snapshot.Item) (snapshot.Content, error) {
	f, err := os.Open(i.Handle)
	return dirContent{f}, err
}

func (r *dirReader) Close() error { return nil }

type dirContent struct{ *os.File }

func (c dirContent) Next(offset int64, hole bool) (int64, error) {
	if hole {
		return file.NextHole(int(c.Fd()), offset)
	}
	return file.NextData(int(c.Fd()), offset)
}

func (c dirContent) Verify() error { return nil }

// otherContent reads the content of an empty file in place of a large one.
func otherContent(i *snapshot.Item) {
	if i.Name == "plain" {
		i.Handle = filepath.Join(filepath.Dir(i.Handle), "nothing")
	}
}
