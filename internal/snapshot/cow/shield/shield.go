// Package shield keeps the content that the indexed files of one volume had at
// the instant of one snapshot: it saves what is about to change to a cache, and
// reads from there what was saved and from the live file what was not. It knows
// nothing of events; who calls Save lets the change go on when Save returns.
//
// # Why what is read is right
//
// A range that is not saved is read from the live file under a lock that Save
// needs, too; as long as a range is not saved nobody was let change it. What
// changed it all the same came by a way that shows no event. Such a change sets
// the file's ctime and mtime, or its size, so these are looked at after each
// reading; if they moved and nothing explains it, the file is torn: the reader
// gets an error and never the bytes.
package shield

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot/cow/index"
	"stillpoint/internal/sys/inode"
)

// Page is what ranges are rounded to: the unit in which the kernel's page cache
// changes files, and in which its events give ranges.
const Page = 4096

// A Cache holds the originals. A *cachefile.File is one.
type Cache interface {
	Save(ctx context.Context, from int, offset, length int64) (at, n int64, err error)
	ReadAt(p []byte, at int64) (int, error)
	Room() int64 // bytes that can still be saved
}

// A Shield is the content of one snapshot. Its methods may be called from
// several goroutines.
type Shield struct {
	index *index.Index
	cache Cache
	live  *pool
	o     Options

	files sync.Map // inode number -> *guarded; only those that were asked for
	lost  atomic.Pointer[error]
}

// Options of a Shield.
type Options struct {
	// Touched tells whether a change of the attributes of an inode since the
	// instant was announced that explains this mtime (utimes, for example).
	// Nil explains nothing.
	Touched func(number uint64, mtime inode.Time) bool

	// Distrusted tells of an inode that it may also be changed in ways that
	// cannot be seen: it is saved whole when the first change is. Nil
	// distrusts none.
	Distrusted func(number uint64) bool

	// Instant is when the snapshot was taken.
	Instant time.Time

	// Flags are told of a file before anybody is let change it, or of all
	// files, for those who read the live ones without asking (Verify). Nil
	// where nobody does.
	Flags Flags

	// Fault is told what happened to single files, once for each.
	Fault func(number uint64, code problem.Code, reason string)
}

// Flags tell which files may have begun to change. Nothing waits for them.
type Flags interface {
	Add(number uint64)
	AddAll()
}

// New makes a Shield for the files of x. mount is the volume's private mount,
// through which live files are opened by their handles.
func New(x *index.Index, mount int, c Cache, o Options) *Shield {
	return &Shield{index: x, cache: c, live: newPool(mount), o: o}
}

// Err is nil as long as what was to be saved could be.
func (s *Shield) Err() error {
	if err := s.lost.Load(); err != nil {
		return *err
	}
	return nil
}

// Lose gives the snapshot up: everybody is let go on at once, and Err has the
// reason. The first one stays.
func (s *Shield) Lose(err error) {
	if s.o.Flags != nil {
		s.o.Flags.AddAll()
	}
	s.lost.CompareAndSwap(nil, &err)
}

// announce comes before anything after which a file may change.
func (s *Shield) announce(number uint64) {
	if s.o.Flags != nil {
		s.o.Flags.Add(number)
	}
}

// Close closes what is open. Nothing may be called after it.
func (s *Shield) Close() { s.live.close() }

// file returns what is known of an inode, nil for what has no content to keep.
func (s *Shield) file(number uint64) *guarded {
	if f, ok := s.files.Load(number); ok {
		return f.(*guarded)
	}
	in := s.index.Inode(number)
	if in == nil || !in.IsRegular() || in.Size == 0 {
		return nil
	}
	f, _ := s.files.LoadOrStore(number, &guarded{in: in})
	return f.(*guarded)
}

// Whole tells whether nothing of the file is to be saved any more.
func (s *Shield) Whole(number uint64) bool {
	if s.lost.Load() != nil {
		return true
	}
	f := s.file(number)
	return f == nil || f.whole.Load()
}

// Unsaved is how much of the file is still to be saved before it may change.
func (s *Shield) Unsaved(number uint64) int64 {
	if s.Whole(number) {
		return 0
	}
	f := s.file(number)
	return max(1, f.in.Size-f.saved.Load())
}

// Save saves what [offset, end) held at the instant and was not saved yet; a
// negative end means the end of the file. from is a descriptor of the live
// file that can be read; negative if there is none. It returns when the range
// may change. ctx bounds how long that takes: a file that could not be saved in
// time is torn, and what wants to change it is not kept waiting.
func (s *Shield) Save(ctx context.Context, number uint64, from int, offset, end int64) {
	f := s.file(number)
	if f == nil || f.whole.Load() || s.lost.Load() != nil {
		return
	}
	if from >= 0 {
		if h, err := inode.Of(from, ""); err != nil || h != f.in.Handle {
			return // a later file with the number of one that is gone
		}
		s.announce(number)
	} else {
		s.announce(number)
		l, err := s.open(f.in)
		if err != nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			s.fault(f, err)
			return
		}
		defer s.live.give(l)
		from = l.fd
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return
	}
	// From the first change that was seen on, the file's times tell nothing
	// any more: what came before it unseen must be noticed now.
	err := s.verify(f, from)
	if s.o.Distrusted != nil && s.o.Distrusted(number) {
		offset, end = 0, -1
	}
	if err == nil {
		err = f.save(ctx, s.cache, from, offset, end)
	}
	s.failed(f, err)
}

// failed is told what came of saving a file. Its lock is held.
func (s *Shield) failed(f *guarded, err error) {
	var full *problem.Problem
	switch {
	case err == nil:
	case errors.Is(err, errTorn), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		s.fault(f, err)
	case errors.As(err, &full):
		s.Lose(err)
	default:
		s.fault(f, err)
	}
}

// GiveUp lets everybody change a file that could not be saved in time. It does
// not wait for those who are at work on it.
func (s *Shield) GiveUp(number uint64) {
	f := s.file(number)
	if f == nil || f.whole.Load() {
		return
	}
	s.announce(number)
	if !f.late.CompareAndSwap(false, true) {
		return
	}
	f.whole.Store(true)
	if s.o.Fault != nil {
		s.o.Fault(number, problem.FileTorn, lateText)
	}
}

const lateText = "it was about to change and could not be saved in time"

// fault gives one file up for an error. Its lock is held.
func (s *Shield) fault(f *guarded, err error) {
	if f.err != nil {
		return
	}
	code, reason := problem.FileTorn, err.Error()
	switch {
	case errors.Is(err, errGone):
		code = problem.FileGone
	case errors.Is(err, errLeased):
		code = problem.FileUnreadable
	case errors.Is(err, context.DeadlineExceeded):
		reason = lateText
	}
	s.giveUp(f, code, reason)
}

func (s *Shield) giveUp(f *guarded, code problem.Code, reason string) {
	s.announce(f.in.Number)
	f.err = problem.Newf(code, "", "%s", reason)
	f.whole.Store(true) // nothing of it needs to be saved any more
	if s.o.Fault != nil && !f.late.Load() {
		s.o.Fault(f.in.Number, code, reason)
	}
}
