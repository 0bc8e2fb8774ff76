package repository

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

// batch is how many names of a directory are in work before their records are
// written, in order.
const batch = 256

// storing is one call of Store.
type storing struct {
	w    *Writer
	o    StoreOptions
	add  *additions
	slot chan struct{} // held by each goroutine that works; who gets none for another works by itself

	// large bounds the large pieces in work, each of which needs memory for
	// several contents.
	large chan struct{}

	mu    sync.Mutex
	fatal error
	stop  context.CancelCauseFunc
}

// Store stores one source. It fails only with what makes the whole tree
// worthless; everything that concerns single files goes to o.Exception.
func (w *Writer) Store(ctx context.Context, src tree.Source, o StoreOptions) (Tree, error) {
	n := o.Parallel
	if n == 0 {
		n = 2 * runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &storing{w: w, o: o, add: newAdditions(o.Added), slot: make(chan struct{}, n), large: make(chan struct{}, runtime.GOMAXPROCS(0)), stop: cancel}

	s.slot <- struct{}{}
	root, err := tree.Open(src)
	if root == nil {
		return Tree{}, err
	}
	if err != nil {
		o.Exception(src.Path, err)
	}
	defer root.Close()
	t := Tree{Path: src.Path, Instant: o.Instant}
	self := Record{Entry: root.Entry, Volume: src.Volume}
	self.Name = filepath.Base(src.Path)
	self.stored = tree.StoredName(self.Name)
	if root.Dir == nil {
		t.Root, err = s.single(ctx, root, src, self)
		return t, err
	}
	var before []earlier
	for _, p := range o.Previous {
		if p.Root.Volume == src.Volume && p.Root.Type == tree.Directory {
			before = append(before, earlier{object: p.Root.Object, origin: origin{p.Instant, p.Incomplete}})
		}
	}
	f := &folder{self: self}
	done := s.checkpoints(ctx, f, t)
	t.Root, err = s.dir(ctx, root.Dir, f, before)
	done(err)
	if err == nil {
		s.add.unused(o.Exception)
	}
	return t, err
}

// single stores a source that is one file.
func (s *storing) single(ctx context.Context, n *tree.Node, src tree.Source, self Record) (Record, error) {
	var before []*Record
	var origins []origin
	for _, p := range s.o.Previous {
		if p.Root.Volume == self.Volume {
			before, origins = append(before, &p.Root), append(origins, origin{p.Instant, p.Incomplete})
		}
	}
	p := &fromNode{n: n, src: src}
	defer p.close()
	r, err := s.leaf(ctx, p, self, before, origins)
	if err != nil && r.Object != "" && ctx.Err() == nil && !fatal(err) {
		s.o.Exception(src.Path, err)
		err = nil
	}
	if ctx.Err() != nil {
		err = s.ended(ctx)
	}
	return r, s.cause(err)
}

// earlier is the listing of the same directory in an earlier backup.
type earlier struct {
	object string
	origin
}

// An origin says what an earlier backup is.
type origin struct {
	instant    time.Time
	incomplete bool // of a run that was interrupted
}

// dir stores a directory whose own record is f.self.
func (s *storing) dir(ctx context.Context, d *tree.Dir, f *folder, before []earlier) (Record, error) {
	names, err := d.Names()
	if err != nil {
		s.exception(f, d.Path(), err)
	}
	names = s.add.names(d, names)
	cursors := make([]*cursor, len(before))
	origins := make([]origin, len(before))
	for i, b := range before {
		cursors[i], origins[i] = openCursor(ctx, s.w.kopia, b.object), b.origin
		defer cursors[i].close()
	}
	defer f.drop()
	for len(names) > 0 {
		part := names[:min(batch, len(names))]
		names = names[len(part):]
		f.begin(len(part))
		var wg sync.WaitGroup
		for i, n := range part {
			found := make([]*Record, len(cursors))
			stored := tree.StoredName(n.Name)
			for j, c := range cursors {
				found[j] = c.find(n.IsDir, stored)
			}
			s.run(&wg, true, func() { f.done(i, s.entry(ctx, d, f, n.Name, stored, found, origins)) })
		}
		// Or the directories above would keep all others from working.
		<-s.slot
		wg.Wait()
		s.slot <- struct{}{}
		if ctx.Err() != nil {
			return f.self, s.ended(ctx)
		}
		if err := f.end(ctx, s.w); err != nil {
			return f.self, s.fail(err)
		}
	}
	s.w.p.Volume(d.Volume()).Dirs.Add(1)
	r, err := f.finish(ctx, s.w)
	return r, s.fail(err)
}

// entry stores one name and returns its record, or nil where there is none.
func (s *storing) entry(ctx context.Context, d *tree.Dir, f *folder, name, stored string, before []*Record, origins []origin) *Record {
	if ctx.Err() != nil {
		return nil
	}
	path := filepath.Join(d.Path(), name)
	if r, err := s.add.record(ctx, s, d, name, stored); r != nil || err != nil {
		if err != nil {
			s.fail(fmt.Errorf("%s: %w", path, err))
		}
		return r
	}
	e, err := d.Stat(name)
	if err != nil {
		s.exception(f, path, err)
		return nil
	}
	self := Record{Entry: e, stored: stored}
	var r Record
	if e.Type == tree.Directory {
		r, err = s.subdir(ctx, d, f, self, before, origins)
	} else {
		r, err = s.leaf(ctx, fromDir{d}, self, before, origins)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || !fatal(err)): // a consequence
		return nil
	case fatal(err):
		s.fail(fmt.Errorf("%s: %w", path, err))
		return nil
	default:
		s.exception(f, path, err)
		if r.Object == "" {
			return nil
		}
	}
	return &r
}

func (s *storing) subdir(ctx context.Context, d *tree.Dir, f *folder, self Record, before []*Record, origins []origin) (Record, error) {
	path := filepath.Join(d.Path(), self.Name)
	if err := s.complete(fromDir{d}, &self, before, origins); err != nil {
		if problem.CodeOf(err) != problem.AttributeUnread {
			return self, err
		}
		s.exception(f, path, err)
	}
	sub, err := d.OpenDir(self.Name)
	child := &folder{self: self}
	if code := problem.CodeOf(err); code == problem.FileVanished || code == problem.FileChanged {
		return self, err
	}
	if err != nil {
		s.exception(f, path, err)
		return child.finish(ctx, s.w)
	}
	defer sub.Close()
	if sub.Volume() != d.Volume() {
		child.self.Volume = sub.Volume()
	}
	var earlierDirs []earlier
	for i, b := range before {
		if b != nil && b.Type == tree.Directory && b.Volume == child.self.Volume {
			earlierDirs = append(earlierDirs, earlier{object: b.Object, origin: origins[i]})
		}
	}
	f.enter(child)
	r, err := s.dir(ctx, sub, child, earlierDirs)
	if err == nil { // else it is part of the last checkpoint
		f.leave(child)
	}
	return r, err
}

// run calls f in a goroutine if there is room for one, else itself.
func (s *storing) run(wg *sync.WaitGroup, parallel bool, f func()) {
	if parallel {
		select {
		case s.slot <- struct{}{}:
			wg.Go(func() {
				defer func() { <-s.slot }()
				f()
			})
			return
		default:
		}
	}
	f()
}

func (s *storing) exception(f *folder, path string, err error) {
	if fatal(err) {
		s.fail(err)
		return
	}
	f.failed(path, err)
	s.o.Exception(path, err)
}

// fail ends the run with its first fatal error.
func (s *storing) fail(err error) error {
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal == nil {
		s.fatal = err
		s.stop(err)
	}
	return s.cause(s.fatal)
}

// ended is why the storing ends when its context does.
func (s *storing) ended(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal != nil {
		return s.cause(s.fatal)
	}
	return problem.New(problem.Cancelled, "", context.Cause(ctx))
}

func (s *storing) cause(err error) error {
	if e := (storeError{}); errors.As(err, &e) {
		return understand(s.w.r.path, e.error)
	}
	if errors.Is(err, context.Canceled) {
		return problem.New(problem.Cancelled, "", err)
	}
	return err
}

// checkpoints saves what there is from time to time, and a last time when the
// storing ends early for another reason than the repository.
func (s *storing) checkpoints(ctx context.Context, root *folder, t Tree) func(error) {
	if s.o.Checkpoint == nil || s.o.Interval == 0 {
		return func(error) {}
	}
	save := func(ctx context.Context) error {
		r, err := root.partial(ctx, s.w)
		if err != nil {
			return err
		}
		t := t
		t.Root, t.Incomplete = r, true
		return s.o.Checkpoint(ctx, t)
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(s.o.Interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := save(ctx); err != nil && ctx.Err() == nil {
					s.fail(fmt.Errorf("checkpoint: %w", err))
				}
			case <-quit:
				return
			}
		}
	}()
	return func(err error) {
		close(quit)
		<-ended
		if problem.CodeOf(err) == problem.Cancelled {
			// Best effort: the run has its error already, and a next
			// run finds the content without this, by reading it.
			_ = save(context.WithoutCancel(ctx))
		}
	}
}
