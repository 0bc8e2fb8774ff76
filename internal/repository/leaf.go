package repository

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kopia/kopia/repo/object"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

// attempts is how often a live file is read that changes meanwhile.
const attempts = 4

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
func (s *storing) complete(p place, self *Record, before []*Record, origins []origin) error {
	for i, b := range before {
		if b != nil && unchanged(b, origins[i].instant, &self.Entry) {
			self.XAttrs, self.Target = b.XAttrs, b.Target
			self.Flags |= b.Flags
			return nil
		}
	}
	return p.complete(&self.Entry)
}

// leaf stores everything that is not a directory.
func (s *storing) leaf(ctx context.Context, p place, self Record, before []*Record, origins []origin) (Record, error) {
	for i, b := range before {
		if b != nil && unchanged(b, origins[i].instant, &self.Entry) && s.has(ctx, b) {
			r := *b
			r.Entry.Name, r.stored, r.Links, r.Volume = self.Name, self.stored, self.Links, self.Volume
			s.counted(p, &r)
			if n := s.w.p.Volume(p.volume()); r.Type == tree.File {
				n.Reused.Add(1)
				n.Bytes.Add(r.Size)
				if onlyInterrupted(before, origins, &self.Entry) {
					n.spared.Add(1)
					n.sparedBytes.Add(r.Size)
				}
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
	if keptOpen(self, err) {
		self.Open = true
		s.counted(p, &self)
	}
	if err != nil {
		return self, err
	}
	s.counted(p, &self)
	return self, attr
}

// keptOpen tells whether a file is stored all the same that was open for writing.
func keptOpen(r Record, err error) bool {
	return r.Object != "" && problem.CodeOf(err) == problem.FileOpenRead
}

// onlyInterrupted tells whether it was an interrupted run, and not a backup, that
// has stored what is unchanged.
func onlyInterrupted(before []*Record, origins []origin, now *tree.Entry) bool {
	for i, b := range before {
		if b != nil && !origins[i].incomplete && unchanged(b, origins[i].instant, now) {
			return false
		}
	}
	return true
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
	switch torn := (problem.Is(first.err, problem.FileChanged) || keptOpen(first.r, first.err)) && first.r.Object != ""; {
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
	var noted error
	for try := 1; ; try++ {
		after, note, err := s.read(ctx, p, &self)
		if err == nil && !tree.Changed(self.Entry, after) {
			fault.Point("repository:file-stored")
			return self, note
		}
		if err != nil && !errors.Is(err, errShort) && !problem.Is(err, problem.FileChanged) {
			return self, err
		}
		if err == nil {
			torn, noted = self, note
		}
		switch {
		case s.o.Live == nil || !s.o.Live(p.volume()):
			return self, problem.Newf(problem.SnapshotLost, "", "the file changed inside the snapshot")
		case try == attempts && noted != nil:
			return torn, fmt.Errorf("changed in each of %d readings; %w", try, noted)
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

// read stores the content once and returns what the file was like after it. The
// note is an exception of a file that is read all the same.
func (s *storing) read(ctx context.Context, p place, self *Record) (e tree.Entry, note, err error) {
	self.Object = ""
	c, err := p.open(self.Entry)
	if err != nil {
		return e, nil, err
	}
	defer c.Close()
	after := func() error { return nil }
	if s.o.Opened != nil {
		if after, err = s.o.Opened(ctx, p.volume(), c); err != nil {
			return e, nil, err
		}
	}
	err = s.contentOf(ctx, c, self, s.w.p.Volume(p.volume()))
	if err == nil {
		e, err = c.Stat()
	}
	note = after() // whatever became of it: what was taken is given back
	if err == nil && problem.Is(note, problem.FileChanged) {
		return e, nil, note
	}
	return e, note, err
}

// contentOf stores the content of an open file, and what is to be told of it.
func (s *storing) contentOf(ctx context.Context, c *tree.Content, self *Record, n *Counters) (err error) {
	if self.Holes, err = c.Holes(); err != nil {
		return err
	}
	flags, err := c.Flags()
	if err != nil {
		return err
	}
	self.Flags |= flags
	id, err := s.content(ctx, c, self.Size, self.Holes, n)
	if err != nil {
		return err
	}
	self.Object = id.String()
	return nil
}
