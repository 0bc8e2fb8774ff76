package tree

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// Overwrite says what to do with what is already in the target and differs.
type Overwrite int

// The ways. A directory that is not empty is never removed, and neither is
// anything outside the target, under none of them.
const (
	Never  Overwrite = iota // keep it
	Newer                   // replace it when the backup's was modified later; a directory is never exchanged for something else
	Always                  // replace it
)

// Outcome says what came of an entry.
type Outcome string

// The outcomes. Only KeptDifferent comes with an error, which has the code
// target-exists.
const (
	Made          Outcome = "made"
	Replaced      Outcome = "replaced"
	Same          Outcome = "same"           // there already: a directory; a file of the same size and time; a link to the same
	KeptNewer     Outcome = "kept-newer"     // what is there is not older, and stays
	KeptDifferent Outcome = "kept-different" // what is there is different, and stays
)

// Unset is an attribute that could not be set as it was.
type Unset struct {
	Name string // of the entry
	What string // "owner", "times", "xattr user.x" …
	Err  error  // with the code attribute-unset and the path
}

// A Maker is a directory that is being restored. It may be used by several
// goroutines; Finish comes after all else that is made in it and below. Like a
// Dir it needs no descriptor of its own.
type Maker struct {
	target *Target
	parent *Maker
	name   string // in the parent; of the root, the path
	folder *folder
	fresh  bool // made by this run: nothing was there, and nothing is inherited from it
	keep   bool // was there before, and its attributes stay

	// What marks tell, see markMade.
	unfinished bool // an earlier run made it, and did not come to its Finish
	lost       bool // what an earlier run made in it may lack its content
	lostBelow  bool // the same of all below; an earlier run made the directory
	covered    bool // a mark stands for what is made in it now
	old        bool // the mark goes only when the directory was finished
	noted      bool // among Target.marks
	finished   bool
	touched    sync.Once
}

// Path is the path in the target.
func (m *Maker) Path() string {
	if m.parent == nil {
		return m.name
	}
	return joined(m.parent.Path(), m.name)
}

// Dir makes the directory e, or enters it where there is one; both are then
// completed by Finish. A symbolic link in its place is never entered: it is
// replaced under Always, and target-unsafe else.
func (m *Maker) Dir(e Entry, o Overwrite) (*Maker, Outcome, error) {
	p, err := m.look(e)
	if err != nil {
		return nil, "", err
	}
	defer p.give()
	outcome := Made
	switch {
	case p.there && p.now.Kind == file.Folder:
		outcome = Same
		if o == Always {
			p.unlock()
		}
	case p.there && o == Always:
		if err := p.clear(file.Remove); err != nil {
			return nil, "", err
		}
		outcome = Replaced
	case p.there && p.now.Kind == file.Symlink:
		return nil, KeptDifferent, problem.Newf(problem.TargetUnsafe, p.path(), "a symbolic link is where a directory belongs")
	case p.there:
		return nil, KeptDifferent, p.exists()
	}
	if outcome != Same {
		err := file.MakeDirectory(p.dir, e.Name)
		if errors.Is(err, syscall.EEXIST) {
			outcome = Same // of another goroutine, or safely refused below
		} else if err != nil {
			return nil, "", unwritten(p.path(), err)
		}
	}
	child, err := m.enter(e.Name, outcome)
	if err != nil {
		return nil, "", err
	}
	child.keep = outcome == Same && o == Never && !child.unfinished
	return child, outcome, nil
}

// enter opens the directory name and prepares it for what comes into it.
func (m *Maker) enter(name string, outcome Outcome) (*Maker, error) {
	child := &Maker{target: m.target, parent: m, name: name, fresh: outcome != Same}
	f, info, err := m.folder.child(name)
	if err != nil {
		return nil, unwritten(child.Path(), err)
	}
	child.folder = f
	m.target.met(info.Device, child)
	fd, err := f.take()
	if err != nil {
		return nil, unwritten(child.Path(), err)
	}
	defer f.give()
	if !child.fresh {
		child.readMarks(fd, info)
		return child, child.sweep()
	}
	if !m.fresh {
		disinherit(fd)
	}
	child.markNew(fd)
	return child, nil
}

// Finish gives the directory the attributes of e, after all that is in it was
// made. One that was there before, under Never, keeps its own; where its owner
// or mode differ from the backup's, that is reported.
func (m *Maker) Finish(e Entry) ([]Unset, error) {
	fd, err := m.folder.take()
	if err != nil {
		return nil, unwritten(m.Path(), err)
	}
	s := setter{path: m.Path, entry: e, fd: fd, exact: !m.fresh, marked: m.noted}
	if m.keep {
		s.compare(m.target)
	} else {
		err = s.all()
	}
	m.folder.give()
	if err != nil {
		return s.unset, err
	}
	m.finished = true
	fault.Point("restore:directory-done")
	return s.unset, m.Close()
}

// Close gives the directory's descriptor back. Finish does that too; the
// directory stays usable.
func (m *Maker) Close() error {
	if m != m.target.root {
		m.folder.rest()
	}
	return nil
}

// A position is a name in a directory of the target and what has it now.
type position struct {
	maker *Maker
	entry Entry
	dir   int // descriptor of the directory
	there bool
	now   file.Info
}

// look finds what is at the place of e. give must follow.
func (m *Maker) look(e Entry) (*position, error) {
	if !possible(e.Name) {
		return nil, problem.Newf(problem.TargetUnsafe, m.Path(), "the backup has an entry with the impossible name %q", e.Name)
	}
	p := &position{maker: m, entry: e}
	var err error
	if p.dir, err = m.folder.take(); err != nil {
		return nil, unwritten(p.path(), err)
	}
	p.now, err = file.Stat(p.dir, e.Name, file.NoFollow|file.NoAutomount)
	switch {
	case err == nil:
		p.there = true
	case !errors.Is(err, syscall.ENOENT):
		p.give()
		return nil, unwritten(p.path(), err)
	}
	return p, nil
}

func (p *position) give() { p.maker.folder.give() }

func (p *position) path() string { return joined(p.maker.Path(), p.entry.Name) }

func (p *position) exists() error {
	return problem.Newf(problem.TargetExists, p.path(), "something different is already there")
}

// decide says what comes of an entry that is no directory, where something is
// there already; same tells whether that is equal to it. Replaced means that
// it can be replaced by a rename.
func (p *position) decide(o Overwrite, same bool) (Outcome, error) {
	switch {
	case !p.there:
		return Made, nil
	case same:
		return Same, nil
	case p.now.Kind == file.Folder && o != Always:
		return KeptDifferent, p.exists()
	case p.now.Kind == file.Folder:
		if err := p.clear(file.RemoveDirectory); err != nil {
			return KeptDifferent, err
		}
		p.there = false
		return Replaced, nil
	case o == Always:
		return Replaced, nil
	case o == Newer && p.entry.Modified.After(p.now.Modified):
		return Replaced, nil
	case o == Newer:
		return KeptNewer, nil
	}
	return KeptDifferent, p.exists()
}

// clear removes what is there.
func (p *position) clear(remove func(dir int, name string) error) error {
	err := remove(p.dir, p.entry.Name)
	if errors.Is(err, syscall.EPERM) && p.unlock() {
		err = remove(p.dir, p.entry.Name)
	}
	switch {
	case isOneOf(err, syscall.ENOTEMPTY, syscall.EEXIST, syscall.EBUSY):
		return problem.Newf(problem.TargetExists, p.path(), "a directory that is not empty is in its place")
	case err != nil && !errors.Is(err, syscall.ENOENT):
		return unwritten(p.path(), err)
	}
	return nil
}

// unlock takes the flags off what is there that keep it from being replaced,
// and tells whether that changed anything.
func (p *position) unlock() bool {
	plain := p.now.Kind == file.Regular || p.now.Kind == file.Folder // opening others may do something
	if !plain || Flags(p.now.Flags)&frozenFlags == 0 {
		return false
	}
	fd, err := file.Open(p.dir, p.entry.Name, file.Read|file.Final|file.Prompt)
	if err != nil {
		return false
	}
	defer func() { _ = file.Close(fd) }()
	flags, err := file.Flags(fd)
	return err == nil && file.SetFlags(fd, flags&^uint32(frozenFlags)) == nil
}

// sameTime compares with what the file system could keep of the backup's time.
func (p *position) sameTime() bool {
	want, got := p.entry.Modified, p.now.Modified
	if got.Equal(want) {
		return true
	}
	if d := want.Sub(got); d < 0 || d >= 2*time.Second || got.Nanosecond()%100 != 0 {
		return false
	}
	return want.Truncate(p.maker.target.granule(p.dir, p.now.Device)).Equal(got)
}
