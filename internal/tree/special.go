package tree

import (
	"errors"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// Symlink makes the symbolic link e. Where one with the same target is, it
// stays.
func (m *Maker) Symlink(e Entry, o Overwrite) (Outcome, []Unset, error) {
	return m.make(e, file.Symlink, o, func(p *position) bool {
		target, err := file.Readlink(p.dir, e.Name)
		return err == nil && target == e.Target
	}, func(dir int, name string) error {
		return file.MakeSymlink(dir, name, e.Target)
	})
}

// Special makes the FIFO, the socket or the device file e. Where the like of
// it is, that stays.
func (m *Maker) Special(e Entry, o Overwrite) (Outcome, []Unset, error) {
	kind, ok := map[Type]file.Kind{FIFO: file.FIFO, Socket: file.Socket, Char: file.Character, Block: file.Block}[e.Type]
	if !ok {
		return "", nil, problem.Newf(problem.TargetUnsafe, joined(m.Path(), e.Name), "the backup has a special file of the unknown type %q", e.Type)
	}
	return m.make(e, kind, o, func(p *position) bool {
		return p.now.Kind == kind && p.now.Node == e.Device
	}, func(dir int, name string) error {
		return file.MakeNode(dir, name, kind, e.Device)
	})
}

// make makes what cannot be opened under a temporary name, sets its attributes
// and gives it its own.
func (m *Maker) make(e Entry, kind file.Kind, o Overwrite, same func(p *position) bool, create func(dir int, name string) error) (Outcome, []Unset, error) {
	p, err := m.look(e)
	if err != nil {
		return "", nil, err
	}
	defer p.give()
	outcome, err := p.decide(o, p.there && same(p))
	if outcome != Made && outcome != Replaced || err != nil {
		return outcome, nil, err
	}
	m.touch(p.dir)
	name := m.target.temporaryName()
	if err := create(p.dir, name); err != nil {
		return "", nil, unwritten(p.path(), err)
	}
	unset, err := p.setPlace(name, kind)
	if err != nil {
		return "", unset, join(err, file.Remove(p.dir, name))
	}
	if err := p.settle(name); err != nil {
		return "", unset, err
	}
	return outcome, unset, nil
}

// setPlace sets the attributes of what has a temporary name and cannot be
// opened. Who may write to the directory could have put another file there, to
// be given it.
func (p *position) setPlace(name string, kind file.Kind) ([]Unset, error) {
	fd, err := file.Open(p.dir, name, file.Place|file.Final)
	if err != nil {
		return nil, unwritten(p.path(), err)
	}
	now, err := file.Stat(fd, "", file.Itself)
	device := kind == file.Character || kind == file.Block
	if err == nil && (now.Kind != kind || now.Links > 1 || device && now.Node != p.entry.Device) {
		err = errOtherFile
	}
	if err != nil {
		return nil, join(unwritten(p.path(), err), file.Close(fd))
	}
	s := setter{path: p.path, entry: p.entry, fd: fd, place: true}
	err = s.all()
	return s.unset, join(err, file.Close(fd))
}

// ErrNoLink says that a file cannot have another name there: it lies in
// another file system, has too many names already, or its file system knows no
// hard links. The content has to be restored a second time.
var ErrNoLink = errors.New("a hard link is not possible")

// A Place is where a file was restored, or found to be the same: what further
// hard links to it need to know.
type Place struct {
	maker *Maker
	name  string
	id    identity
	kind  file.Kind
	flags Flags
}

// Place returns the place of an entry that exists now.
func (m *Maker) Place(name string) (Place, error) {
	p, err := m.look(Entry{Name: name})
	if err != nil {
		return Place{}, err
	}
	defer p.give()
	if !p.there {
		return Place{}, unwritten(p.path(), syscall.ENOENT)
	}
	return Place{maker: m, name: name, id: identityOf(p.now), kind: p.now.Kind, flags: Flags(p.now.Flags)}, nil
}

// Link makes e a hard link to the file at first, which may be in another
// directory of the target. It fails with ErrNoLink, and the code
// attribute-unset, where that is not possible.
func (m *Maker) Link(e Entry, o Overwrite, first Place) (Outcome, error) {
	p, err := m.look(e)
	if err != nil {
		return "", err
	}
	defer p.give()
	same := p.there && identityOf(p.now) == first.id
	equal := p.there && o != Always && e.Type == File && p.now.Kind == file.Regular && (p.now.Size == e.Size || m.lost && p.now.Size < e.Size) && p.sameTime()
	if equal && !same && m.lost {
		equal, o = false, Always
	}
	outcome, err := p.decide(o, same || equal)
	if outcome != Made && outcome != Replaced || err != nil {
		return outcome, err
	}
	m.touch(p.dir)
	fd, err := first.open(file.Place)
	if err != nil {
		return "", err
	}
	err = p.link(fd)
	if first.flags&frozenFlags != 0 && errors.Is(err, syscall.EPERM) {
		err = first.unfrozen(func() error { return p.link(fd) })
	}
	err = join(err, file.Close(fd))
	switch {
	case isOneOf(err, syscall.EXDEV, syscall.EMLINK, syscall.EPERM, syscall.EOPNOTSUPP):
		cause := err
		if of := (*problem.Problem)(nil); errors.As(err, &of) {
			cause = of.Err // without the path
		}
		return "", problem.Newf(problem.AttributeUnset, p.path(), "%w: %s", ErrNoLink, cause)
	case err != nil:
		return "", err
	}
	return outcome, nil
}

// open opens the very file that was there.
func (f Place) open(mode file.Mode) (int, error) {
	path := joined(f.maker.Path(), f.name)
	dir, err := f.maker.folder.take()
	if err != nil {
		return -1, unwritten(path, err)
	}
	defer f.maker.folder.give()
	fd, err := file.Open(dir, f.name, mode|file.Final)
	if err != nil {
		return -1, unwritten(path, err)
	}
	info, err := file.Stat(fd, "", file.Itself)
	if err == nil && identityOf(info) != f.id {
		err = errReplaced
	}
	if err != nil {
		return -1, join(unwritten(path, err), file.Close(fd))
	}
	return fd, nil
}

// unfrozen does something while the file can be changed: one that is immutable
// gets no further name (link(2): EPERM).
func (f Place) unfrozen(do func() error) error {
	fd, err := f.open(file.Read | file.Prompt)
	if err != nil {
		return err
	}
	return join(melted(fd, do), file.Close(fd))
}

// melted does something while the file or directory fd can be changed.
func melted(fd int, do func() error) error {
	flags, err := file.Flags(fd)
	if err == nil {
		err = file.SetFlags(fd, flags&^uint32(frozenFlags))
	}
	if err != nil {
		return err
	}
	return join(do(), file.SetFlags(fd, flags))
}
