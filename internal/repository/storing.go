package repository

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/object"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

// batch is how many names of a directory are in work before their records are
// written, in order.
const batch = 256

// attempts is how often a live file is read that changes meanwhile.
const attempts = 4

// storing is one call of Store.
type storing struct {
	w    *Writer
	o    StoreOptions
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
	s := &storing{w: w, o: o, slot: make(chan struct{}, n), large: make(chan struct{}, runtime.GOMAXPROCS(0)), stop: cancel}

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
			before = append(before, earlier{object: p.Root.Object, instant: p.Instant})
		}
	}
	f := &folder{self: self}
	done := s.checkpoints(ctx, f, t)
	t.Root, err = s.dir(ctx, root.Dir, f, before)
	done(err)
	return t, err
}

// single stores a source that is one file.
func (s *storing) single(ctx context.Context, n *tree.Node, src tree.Source, self Record) (Record, error) {
	var before []*Record
	var instants []time.Time
	for _, p := range s.o.Previous {
		if p.Root.Volume == self.Volume {
			before, instants = append(before, &p.Root), append(instants, p.Instant)
		}
	}
	p := &fromNode{n: n, src: src}
	defer p.close()
	r, err := s.leaf(ctx, p, self, before, instants)
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
	object  string
	instant time.Time
}

// dir stores a directory whose own record is f.self.
func (s *storing) dir(ctx context.Context, d *tree.Dir, f *folder, before []earlier) (Record, error) {
	names, err := d.Names()
	if err != nil {
		s.exception(f, d.Path(), err)
	}
	cursors := make([]*cursor, len(before))
	instants := make([]time.Time, len(before))
	for i, b := range before {
		cursors[i], instants[i] = openCursor(ctx, s.w.kopia, b.object), b.instant
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
			s.run(&wg, true, func() { f.done(i, s.entry(ctx, d, f, n.Name, stored, found, instants)) })
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
func (s *storing) entry(ctx context.Context, d *tree.Dir, f *folder, name, stored string, before []*Record, instants []time.Time) *Record {
	if ctx.Err() != nil {
		return nil
	}
	path := filepath.Join(d.Path(), name)
	e, err := d.Stat(name)
	if err != nil {
		s.exception(f, path, err)
		return nil
	}
	self := Record{Entry: e, stored: stored}
	var r Record
	if e.Type == tree.Directory {
		r, err = s.subdir(ctx, d, f, self, before, instants)
	} else {
		r, err = s.leaf(ctx, fromDir{d}, self, before, instants)
	}
	switch {
	case err == nil:
	case fatal(err):
		s.fail(fmt.Errorf("%s: %w", path, err))
		return nil
	case ctx.Err() != nil: // a consequence
		return nil
	default:
		s.exception(f, path, err)
		if r.Object == "" {
			return nil
		}
	}
	return &r
}

func (s *storing) subdir(ctx context.Context, d *tree.Dir, f *folder, self Record, before []*Record, instants []time.Time) (Record, error) {
	path := filepath.Join(d.Path(), self.Name)
	if err := s.complete(fromDir{d}, &self, before, instants); err != nil {
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
			earlierDirs = append(earlierDirs, earlier{object: b.Object, instant: instants[i]})
		}
	}
	f.enter(child)
	r, err := s.dir(ctx, sub, child, earlierDirs)
	if err == nil { // else it is part of the last checkpoint
		f.leave(child)
	}
	return r, err
}

// place is where a name is read: in a directory, or it is the root itself.
type place interface {
	complete(e *tree.Entry) error
	open(e tree.Entry) (*tree.Content, error)
	stat(name string) (tree.Entry, error)
	volume() string
}

type fromDir struct{ d *tree.Dir }

func (p fromDir) complete(e *tree.Entry) error             { return p.d.Complete(e) }
func (p fromDir) open(e tree.Entry) (*tree.Content, error) { return p.d.OpenFile(e) }
func (p fromDir) stat(name string) (tree.Entry, error)     { return p.d.Stat(name) }
func (p fromDir) volume() string                           { return p.d.Volume() }

type fromNode struct {
	n    *tree.Node
	src  tree.Source
	next *tree.Node // what has the path now, after stat
}

func (p *fromNode) complete(*tree.Entry) error { return nil }
func (p *fromNode) volume() string             { return p.src.Volume }

func (p *fromNode) open(tree.Entry) (*tree.Content, error) {
	if p.next != nil {
		return p.next.OpenFile()
	}
	return p.n.OpenFile()
}

func (p *fromNode) stat(string) (tree.Entry, error) {
	p.close()
	n, err := tree.Open(p.src)
	if n == nil {
		return tree.Entry{}, err
	}
	p.next = n
	return n.Entry, nil
}

func (p *fromNode) close() {
	if p.next != nil {
		p.next.Close()
		p.next = nil
	}
}

// complete fills in what statx does not tell. An entry with the ctime of an
// earlier backup has its attributes, because every change of them sets ctime.
func (s *storing) complete(p place, self *Record, before []*Record, instants []time.Time) error {
	for i, b := range before {
		if b != nil && unchanged(b, instants[i], &self.Entry) {
			self.XAttrs, self.Target = b.XAttrs, b.Target
			self.Flags |= b.Flags
			return nil
		}
	}
	return p.complete(&self.Entry)
}

// leaf stores everything that is not a directory.
func (s *storing) leaf(ctx context.Context, p place, self Record, before []*Record, instants []time.Time) (Record, error) {
	for i, b := range before {
		if b != nil && unchanged(b, instants[i], &self.Entry) && s.has(ctx, b) {
			r := *b
			r.Entry.Name, r.stored, r.Links, r.Volume = self.Name, self.stored, self.Links, self.Volume
			s.counted(p, &r)
			if n := s.w.p.Volume(p.volume()); r.Type == tree.File {
				n.Reused.Add(1)
				n.Bytes.Add(r.Size)
			}
			return r, nil
		}
	}
	attr := p.complete(&self.Entry)
	if attr != nil && problem.CodeOf(attr) != problem.AttributeUnread {
		return self, attr
	}
	var err error
	switch {
	case self.Type == tree.File && self.Links > 1:
		self, err = s.linked(ctx, p, self)
	case self.Type == tree.File:
		self, err = s.file(ctx, p, self)
	case self.Type == tree.Symlink:
		self.Size = int64(len(self.Target))
		self.Object, err = s.bytes(ctx, []byte(self.Target))
	default:
		self.Size = 0
		self.Object, err = s.bytes(ctx, nil)
	}
	if err != nil {
		return self, err
	}
	s.counted(p, &self)
	return self, attr
}

func (s *storing) counted(p place, r *Record) {
	if n := s.w.p.Volume(p.volume()); r.Type == tree.File {
		n.Files.Add(1)
	} else {
		n.Others.Add(1)
	}
}

// has tells whether the content of an earlier record is still there, so that a
// repository that has lost something heals with the next backup.
func (s *storing) has(ctx context.Context, b *Record) bool {
	id, err := object.ParseID(b.Object)
	if err != nil {
		return false
	}
	for {
		inner, ok := id.IndexObjectID()
		if !ok {
			break
		}
		id = inner
	}
	c, _, ok := id.ContentID()
	if !ok {
		return false
	}
	_, err = s.w.kopia.ContentInfo(ctx, c)
	return err == nil
}

func (s *storing) bytes(ctx context.Context, b []byte) (string, error) {
	w := s.w.kopia.NewObjectWriter(ctx, object.WriterOptions{Compressor: compressor, MetadataCompressor: compressor})
	defer w.Close()
	if _, err := w.Write(b); err != nil {
		return "", stored(err)
	}
	id, err := w.Result()
	return id.String(), stored(err)
}

type linkKey struct {
	volume string
	inode  uint64
}

type linked struct {
	done chan struct{}
	r    Record
	err  error
}

// linked stores a file with several names once.
func (s *storing) linked(ctx context.Context, p place, self Record) (Record, error) {
	l := &linked{done: make(chan struct{})}
	key := linkKey{p.volume(), self.Inode}
	if other, ok := s.w.links.LoadOrStore(key, l); ok {
		first := other.(*linked)
		select {
		case <-first.done:
		case <-ctx.Done():
			return self, context.Cause(ctx)
		}
		return s.again(ctx, p, self, first)
	}
	l.r, l.err = s.file(ctx, p, self)
	close(l.done)
	return l.r, l.err
}

// again stores a further name of a file. What is read live may have changed
// since the first name was read, or may even be another file with the number
// of one that is gone.
func (s *storing) again(ctx context.Context, p place, self Record, first *linked) (Record, error) {
	switch torn := problem.Is(first.err, problem.FileChanged) && first.r.Object != ""; {
	case torn, first.err == nil && !tree.Changed(first.r.Entry, self.Entry):
		name := self.Name
		self.Entry, self.Object = first.r.Entry, first.r.Object
		self.Name = name
		return self, first.err
	case fatal(first.err):
		return self, first.err
	}
	r, err := s.file(ctx, p, self)
	if err == nil && first.err == nil && r.Object != first.r.Object {
		err = problem.Newf(problem.FileChanged, "", "changed after another name of it was read: they come back as two files")
	}
	return r, err
}

// file stores a regular file, and when it is read live, again until it held
// still. If it never does, the last reading is kept.
func (s *storing) file(ctx context.Context, p place, self Record) (Record, error) {
	var torn Record
	for try := 1; ; try++ {
		after, err := s.read(ctx, p, &self)
		if err == nil && !tree.Changed(self.Entry, after) {
			fault.Point("repository:file-stored")
			return self, nil
		}
		if err != nil && !errors.Is(err, errShort) && !problem.Is(err, problem.FileChanged) {
			return self, err
		}
		if err == nil {
			torn = self
		}
		switch {
		case !s.o.Live:
			return self, problem.Newf(problem.SnapshotLost, "", "the file changed inside the snapshot")
		case try == attempts:
			return torn, problem.Newf(problem.FileChanged, "", "changed in each of %d readings", try)
		}
		select {
		case <-time.After(time.Duration(try*try) * 50 * time.Millisecond):
		case <-ctx.Done():
			return self, context.Cause(ctx)
		}
		self.Object = ""
		if self.Entry, err = p.stat(self.Name); err != nil {
			return self, err
		}
		if self.Type != tree.File {
			return self, problem.Newf(problem.FileChanged, "", "became a %s while it was read", self.Type)
		}
		if err := p.complete(&self.Entry); err != nil && problem.CodeOf(err) != problem.AttributeUnread {
			return self, err
		}
	}
}

// read stores the content once and returns what the file was like after it.
func (s *storing) read(ctx context.Context, p place, self *Record) (tree.Entry, error) {
	self.Object = ""
	c, err := p.open(self.Entry)
	if err != nil {
		return tree.Entry{}, err
	}
	defer c.Close()
	if self.Holes, err = c.Holes(); err != nil {
		return tree.Entry{}, err
	}
	flags, err := c.Flags()
	if err != nil {
		return tree.Entry{}, err
	}
	self.Flags |= flags
	id, err := s.content(ctx, c, self.Size, self.Holes, s.w.p.Volume(p.volume()))
	if err != nil {
		return tree.Entry{}, err
	}
	self.Object = id.String()
	return c.Stat()
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
