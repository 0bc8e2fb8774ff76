package sqlite

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// A search is what is done below one path, by several goroutines.
type search struct {
	*finding
	ctx    context.Context
	root   string
	order  int
	device uint64
	known  known

	free chan struct{} // has room for each one that may help
	wait sync.WaitGroup
	over atomic.Bool // there are more databases than can be held

	mu    sync.Mutex // of what follows
	later []folder
	errs  []error
	more  int // that are not in errs
}

// A folder is a directory, and the mount that shows it.
type folder struct {
	path  string
	mount uint64
}

// others is how many look besides the one that begins. More would wait for the
// disk no less, and take processors from those who work here.
func others() int { return min(max(runtime.GOMAXPROCS(0), 2), 4) - 1 }

// folders looks into a directory and all below. What other mounts show of the
// same file system comes last, in the order of its paths: by which of them a
// directory is known must not depend on who is faster.
func (s *search) folders(first folder) {
	for next := []folder{first}; len(next) > 0; s.later = nil {
		slices.SortFunc(next, func(a, b folder) int { return compare(a.path, b.path) })
		for _, f := range next {
			s.folder(f)
			s.wait.Wait()
		}
		next = s.later
	}
}

// folder looks into a directory, and lets others help with those below.
func (s *search) folder(f folder) {
	below, err := s.look(f)
	if err != nil {
		s.failed(err)
	}
	for _, b := range below {
		select {
		case s.free <- struct{}{}:
			s.wait.Go(func() {
				defer func() { <-s.free }()
				s.folder(b)
			})
		default:
			s.folder(b)
		}
	}
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// look looks at all that is in a directory, and returns the directories there.
func (s *search) look(f folder) (below []folder, err error) {
	if s.stopped() {
		return nil, nil
	}
	dir, err := file.Open(file.Here, f.path, file.Read|file.Directory|file.Final)
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, nil // it was one
	}
	if err != nil {
		return nil, named(f.path, err)
	}
	defer file.Close(dir)
	// It is entered now, and not when its name was read: two names may have been
	// exchanged since, or another one put there.
	is, err := file.Stat(dir, "", file.Itself)
	if err != nil || is.Device != s.device || !s.enter(of(is)) {
		return nil, named(f.path, err)
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	var used []string
	err = file.List(dir, *buf, func(raw []byte, kind file.Kind, inode uint64) error {
		if s.stopped() {
			return errStopped
		}
		if kind != file.Folder && kind != file.Regular && kind != file.Unknown {
			return nil
		}
		name, how := string(raw), file.NoFollow|file.NoAutomount
		if kind == file.Folder {
			how |= file.Cached // where a file system is mounted whose server may be gone
		}
		if of, ok := beside(name); ok {
			used = append(used, of)
		}
		if kind == file.Regular {
			if s.known.has(inode) {
				return nil
			}
			s.known.asking()
		}
		info, err := file.Stat(dir, name, how)
		switch {
		case err != nil:
			s.failed(named(join(f.path, name), err))
		case info.Device != s.device: // another path's matter
		case info.Kind == file.Regular:
			s.file(dir, name, join(f.path, name), info)
		case info.Kind == file.Folder:
			below = s.note(below, f, folder{join(f.path, name), info.Mount})
		}
		return nil
	})
	if errors.Is(err, errStopped) {
		return nil, nil
	}
	for _, name := range used {
		s.used(dir, name, join(f.path, name))
	}
	if err != nil {
		err = named(f.path, err)
	}
	return below, err
}

// note adds a directory to those that are to be looked into.
func (s *search) note(below []folder, in, f folder) []folder {
	if f.mount == in.mount {
		return append(below, f)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later = append(s.later, f)
	return below
}

// file looks at a file that may be a database by its size.
func (s *search) file(dir int, name, path string, info file.Info) {
	if sized(info.Size) {
		s.add(dir, name, path, false)
	}
}

// used looks at a file that has a journal or a log beside it, if there is one: a
// database that is being written to may have any size.
func (s *search) used(dir int, name, path string) {
	info, err := file.Stat(dir, name, file.NoFollow|file.NoAutomount)
	if err == nil && info.Kind == file.Regular && info.Device == s.device {
		s.add(dir, name, path, true)
	}
}

// add adds a file to what is found if it is a database.
func (s *search) add(dir int, name, path string, used bool) {
	h, key, ok, err := read(dir, name, used)
	if err != nil {
		s.failed(named(path, err))
	}
	if !ok {
		return
	}
	s.finding.mu.Lock()
	defer s.finding.mu.Unlock()
	d, known := s.found[key]
	switch {
	case known && (d.order < s.order || compare(d.path, path) <= 0):
	case !known && len(s.found) == most:
		s.over.Store(true)
	default:
		s.found[key] = hit{path, s.order, h}
	}
}

// stopped tells whether there is no more to be done.
func (s *search) stopped() bool { return s.over.Load() || s.ctx.Err() != nil }

var errStopped = errors.New("stopped")

// failed takes note of what could not be looked at.
func (s *search) failed(err error) {
	if ignoreGone(err) == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) == toldOf {
		s.more++
		return
	}
	s.errs = append(s.errs, err)
}

// toldOf is how many are told of: on a disk that is about to die it may be any number.
const toldOf = 100

// result is what was in the way.
func (s *search) result() error {
	slices.SortFunc(s.errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if s.more > 0 {
		s.errs = append(s.errs, fmt.Errorf("and %d more files or directories", s.more))
	}
	switch {
	case s.ctx.Err() != nil:
		s.errs = append(s.errs, problem.New(problem.WriterTimeout, s.root, context.Cause(s.ctx)))
	case s.over.Load():
		s.errs = append(s.errs, problem.Newf(problem.WriterResources, s.root, "there are more than %d databases, which are too many for one capture", most))
	}
	return errors.Join(s.errs...)
}

func join(dir, name string) string { return strings.TrimSuffix(dir, "/") + "/" + name }
