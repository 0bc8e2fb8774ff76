package tree

import (
	"errors"
	"io"
	"testing"
)

// A copier restores what it reads, as the repository would, and notes what
// came of it.
type copier struct {
	overwrite Overwrite
	links     map[uint64]Place
	outcomes  map[Outcome]int
	unset     []Unset
	problems  []error
	around    func(path string) // called before every entry is made, unless nil
	budget    int               // of descriptors, unless 0
	boot      string            // of the system, unless this one
}

// copyTree restores source to target and fails the test on everything that
// was not restored as it was.
func copyTree(t *testing.T, source Source, target string) *copier {
	t.Helper()
	c := copyTreeLoosely(t, source, target, Never)
	for _, err := range c.problems {
		t.Errorf("copy: %v", err)
	}
	for _, u := range c.unset {
		t.Errorf("unset: %s: %s: %v", u.Name, u.What, u.Err)
	}
	return c
}

func copyTreeLoosely(t *testing.T, source Source, target string, o Overwrite) *copier {
	t.Helper()
	c := &copier{overwrite: o}
	if err := c.tree(source, target); err != nil {
		t.Fatalf("copy %s: %v", source.Path, err)
	}
	return c
}

func (c *copier) tree(source Source, path string) (err error) {
	c.links, c.outcomes = map[uint64]Place{}, map[Outcome]int{}
	n, err := Open(source)
	if n == nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if c.boot == "" {
		c.boot = thisBoot()
	}
	target, err := openTargetIn(path, c.boot)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if c.budget > 0 {
		target.folders.budget = c.budget
	}
	if n.Dir == nil {
		return c.rootFile(n, target)
	}
	c.directory(n.Dir, target.Root())
	c.note(target.Root().Finish(n.Entry))
	return nil
}

func (c *copier) note(unset []Unset, err error) {
	c.unset = append(c.unset, unset...)
	if err != nil {
		c.problems = append(c.problems, err)
	}
}

func (c *copier) directory(d *Dir, m *Maker) {
	names, err := d.Names()
	c.note(nil, err)
	for _, n := range names {
		e, err := d.Stat(n.Name)
		if err != nil {
			c.note(nil, err)
			continue
		}
		c.note(nil, d.Complete(&e))
		if c.around != nil {
			c.around(joined(m.Path(), e.Name))
		}
		c.entry(d, m, e)
	}
}

func (c *copier) entry(d *Dir, m *Maker, e Entry) {
	if e.Type == Directory {
		below, err := d.OpenDir(e.Name)
		if err != nil {
			c.note(nil, err)
			return
		}
		made, outcome, err := m.Dir(e, c.overwrite)
		c.outcomes[outcome]++
		c.note(nil, err)
		if made != nil {
			c.directory(below, made)
			c.note(made.Finish(e))
		}
		c.note(nil, below.Close())
		return
	}
	if first, ok := c.links[e.Inode]; ok && e.Links > 1 {
		outcome, err := m.Link(e, c.overwrite, first)
		c.outcomes[outcome]++
		c.note(nil, err)
		return
	}
	var outcome Outcome
	var err error
	var unset []Unset
	switch e.Type {
	case File:
		outcome, unset, err = c.file(e, m, func() (*Content, error) { return d.OpenFile(e) })
	case Symlink:
		outcome, unset, err = m.Symlink(e, c.overwrite)
	default:
		outcome, unset, err = m.Special(e, c.overwrite)
	}
	c.outcomes[outcome]++
	c.note(unset, err)
	if e.Links > 1 && err == nil {
		place, err := m.Place(e.Name)
		c.note(nil, err)
		c.links[e.Inode] = place
	}
}

func (c *copier) rootFile(n *Node, target *Target) error {
	outcome, unset, err := c.file(n.Entry, target.Root(), n.OpenFile)
	c.outcomes[outcome]++
	c.note(unset, nil)
	return err
}

func (c *copier) file(e Entry, m *Maker, open func() (*Content, error)) (Outcome, []Unset, error) {
	content, err := open()
	if err != nil {
		return "", nil, err
	}
	defer content.Close()
	if e.Holes, err = content.Holes(); err != nil {
		return "", nil, err
	}
	flags, err := content.Flags()
	if err != nil {
		return "", nil, err
	}
	e.Flags |= flags
	f, outcome, err := m.File(e, c.overwrite)
	if f == nil {
		return outcome, nil, err
	}
	if err := copyContent(f, content, e); err != nil {
		return outcome, nil, errors.Join(err, f.Abort())
	}
	unset, err := f.Commit()
	return outcome, unset, err
}

func copyContent(f *FileMaker, content *Content, e Entry) error {
	off := int64(0)
	for _, h := range append(e.Holes, Range{Offset: e.Size}) {
		r := io.NewSectionReader(content, off, h.Offset-off)
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.NewOffsetWriter(f, off)}, struct{ io.Reader }{r}, make([]byte, min(max(h.Offset-off, 1), 128<<10))); err != nil {
			return err
		}
		off = h.Offset + h.Length
	}
	return nil
}
