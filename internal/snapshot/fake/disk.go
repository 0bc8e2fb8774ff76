package fake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/volume"
)

// A disk is what a set is in the store:
//
//	SET.set   the record: the inode of the directory, locked while the process lives
//	SET/      the copies
//
// The record comes first and goes last.
type disk struct {
	store string
	set   string
	f     *os.File // the record, open and locked
}

type record struct {
	Set   string `json:"set"`
	Inode uint64 `json:"inode"` // 0 until the directory is there
}

const suffix = ".set"

func (d *disk) dir() string  { return filepath.Join(d.store, d.set) }
func (d *disk) path() string { return d.dir() + suffix }

// create makes record and directory of a set.
func create(store, set string) (*disk, error) {
	dir, err := os.Open(store)
	if err != nil {
		return nil, problem.New(problem.SnapshotFailed, store, err)
	}
	defer dir.Close()
	fd, err := file.Open(int(dir.Fd()), ".", file.Write|file.Unnamed)
	if err != nil {
		return nil, problem.New(problem.SnapshotFailed, store, err)
	}
	d := &disk{store: store, set: set, f: os.NewFile(uintptr(fd), set+suffix)}
	err = d.begin(int(dir.Fd()))
	if errors.Is(err, syscall.EEXIST) {
		d.f.Close()
		return nil, problem.Newf(problem.Busy, set, "a set of this id exists")
	}
	if err != nil {
		return nil, problem.New(problem.SnapshotFailed, store, errors.Join(err, d.remove()))
	}
	return d, nil
}

func (d *disk) begin(store int) error {
	if err := file.Lock(int(d.f.Fd())); err != nil {
		return err
	}
	if err := d.write(record{Set: d.set}); err != nil {
		return err
	}
	if err := file.Link(int(d.f.Fd()), store, d.set+suffix); err != nil {
		return err
	}
	if err := os.Mkdir(d.dir(), 0o700); err != nil {
		return err
	}
	inode, err := inodeOf(d.dir())
	if err != nil {
		return err
	}
	return d.write(record{d.set, inode})
}

func (d *disk) write(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = d.f.WriteAt(append(b, '\n'), 0) // never shorter than before
	return err
}

func inodeOf(path string) (uint64, error) {
	st, err := file.Stat(file.Here, path, file.NoFollow)
	return st.Inode, err
}

// remove removes directory and record, and gives back the lock.
func (d *disk) remove() error {
	if err := removeAll(d.dir()); err != nil {
		return err
	}
	if err := os.Remove(d.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.f.Close()
}

// removeAll removes a tree, also where its directories cannot be written.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// scan finds the sets in a store whose process has ended.
func scan(store string) (sets []string, err error) {
	names, err := os.ReadDir(store)
	if err != nil {
		return nil, fmt.Errorf("look for leftovers: %w", err)
	}
	var errs []error
	known := map[string]bool{}
	for _, n := range names {
		set, ok := strings.CutSuffix(n.Name(), suffix)
		if !ok {
			continue
		}
		known[n.Name()], known[set] = true, true
		d, err := reopen(store, set)
		if err != nil {
			errs = append(errs, err)
		}
		if d != nil {
			sets = append(sets, set)
			d.f.Close()
		}
	}
	for _, n := range names {
		if !known[n.Name()] {
			errs = append(errs, foreign(n.Name(), "belongs to no set"))
		}
	}
	return sets, errors.Join(errs...)
}

// looking runs f while nobody else looks at what is left in a store: who looks at a
// record has its lock, and would be taken for its process.
func looking(ctx context.Context, store string, f func() error) error {
	dir, err := os.Open(store)
	if err != nil {
		return fmt.Errorf("look for leftovers: %w", err)
	}
	defer dir.Close()
	for {
		err := file.Lock(int(dir.Fd()))
		switch {
		case err == nil:
			return f()
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("look for leftovers: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// reopen opens and locks what is left of a set, or returns nil when its
// process lives or there is no such set.
func reopen(store, set string) (*disk, error) {
	f, err := os.OpenFile(filepath.Join(store, set+suffix), os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := &disk{store: store, set: set, f: f}
	dead, err := d.examine()
	if !dead {
		f.Close()
		return nil, err
	}
	return d, nil
}

func (d *disk) examine() (dead bool, err error) {
	if err := file.Lock(int(d.f.Fd())); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = nil
		}
		return false, err
	}
	var r record
	if err := json.NewDecoder(d.f).Decode(&r); err != nil || r.Set != d.set {
		return false, foreign(d.set+suffix, "is not a record")
	}
	inode, err := inodeOf(d.dir())
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && inode == r.Inode:
		return true, nil
	case err != nil:
		return false, err
	case r.Inode == 0 && os.Remove(d.dir()) == nil:
		return true, nil // made, empty and not yet recorded
	}
	return false, foreign(d.set, "is not the directory on record")
}

func foreign(name, why string) error {
	return problem.Newf(problem.LeftoverForeign, name, "%s; it is not touched", why)
}

// A leftover is a set whose process has ended.
type leftover struct {
	p   *Provider
	set string
}

// ID is the set's.
func (l leftover) ID() string { return l.set }

// Volume is not known.
func (l leftover) Volume() volume.ID { return "" }

// Parts is empty.
func (l leftover) Parts() []snapshot.Part { return nil }

// Gaps is empty.
func (l leftover) Gaps() []snapshot.Gap { return nil }

// Root does not exist.
func (l leftover) Root() string { return "/proc/self/fd/none" }

// Err is never nil.
func (l leftover) Err() error { return problem.Newf(problem.SnapshotLost, l.ID(), "it is a leftover") }

// Release removes the set.
func (l leftover) Release(ctx context.Context) error {
	if err := l.p.step(ctx, "release"); err != nil {
		return err
	}
	err := looking(ctx, l.p.store, func() error {
		d, err := reopen(l.p.store, l.set)
		if err == nil && d != nil {
			err = d.remove()
		}
		return err
	})
	if err != nil {
		return problem.New(problem.ReleaseFailed, l.ID(), err)
	}
	return nil
}
