package tree

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// A FileMaker is a regular file that is being restored and that nobody sees
// before Commit. Exactly one of Commit and Abort follows.
type FileMaker struct {
	at        position // its directory is open only in Commit
	outcome   Outcome
	fd        int
	temporary string // its name where the file system needs one
	end       atomic.Int64
	set       setter
}

// File begins the file e, whose content then comes by WriteAt. There is no
// FileMaker when what is there already stays; a file of the same size, time,
// owner and mode counts as the same, but not under Always, so that an
// interrupted restore goes on where it was.
// Holes are not written.
func (m *Maker) File(e Entry, o Overwrite) (*FileMaker, Outcome, error) {
	p, err := m.look(e)
	if err != nil {
		return nil, "", err
	}
	defer p.give()
	if e.Size < 0 {
		return nil, "", problem.Newf(problem.TargetUnsafe, p.path(), "the backup has a file of size %d", e.Size)
	}
	equal := p.there && p.now.Kind == file.Regular && (p.now.Size == e.Size || m.lost && p.now.Size < e.Size) && p.sameTime() && p.ours()
	if equal && m.lost {
		o = Always
	}
	outcome, err := p.decide(o, equal && o != Always)
	if outcome == Same {
		return nil, Same, p.finishFlags()
	}
	if outcome != Made && outcome != Replaced || err != nil {
		return nil, outcome, err
	}
	m.touch(p.dir)
	fd, name, err := m.target.newFile(p.dir)
	if err != nil {
		return nil, "", unwritten(p.path(), err)
	}
	f := &FileMaker{at: *p, outcome: outcome, fd: fd, temporary: name}
	f.set = setter{path: f.at.path, entry: e, fd: fd}
	if err := f.prepare(!m.fresh); err != nil {
		return nil, "", join(err, f.Abort())
	}
	return f, outcome, nil
}

// ours tells whether a file in the way can be what an earlier run restored:
// owner and mode are the backup's, as far as they can be set here, and it has no more
// names than the backup knows. Else whoever may write to the directory could put
// somebody's file there, by a rename or a hard link, and be given it; and what an
// administrator has closed since would pass for the same.
func (p *position) ours() bool {
	if p.now.Links > max(1, p.entry.Links) {
		return false
	}
	if os.Geteuid() != 0 {
		return p.now.UID == p.entry.UID || int(p.now.UID) == os.Geteuid()
	}
	now := rightsOf(p.now)
	return now == rights{p.entry.UID, p.entry.GID, p.entry.Mode & 0o7777} || now == p.maker.target.takes(p.dir, p.now.Device, p.entry)
}

// prepare sets what has to be there before the first byte: NoCOW works on empty
// files only, and compression on what is written from then on (btrfs(5)). A
// sparse file has its size first, because XFS allocates more than is written
// at the end of a file.
func (f *FileMaker) prepare(inherited bool) error {
	if inherited {
		disinherit(f.fd)
	}
	f.set.flags(keptFlags &^ lateFlags)
	for i, x := range f.set.entry.XAttrs {
		if strings.HasPrefix(x.Name, "btrfs.") {
			f.set.setXattr(f.set.entry.XAttrs[i])
		}
	}
	if len(f.at.entry.Holes) > 0 {
		return f.setSize()
	}
	return nil
}

func (f *FileMaker) setSize() error {
	if err := file.Truncate(f.fd, f.at.entry.Size); err != nil {
		return unwritten(f.at.path(), err)
	}
	return nil
}

// finishFlags sets what a run that was killed after the file became visible
// had still to do.
func (p *position) finishFlags() error {
	missing := p.entry.Flags & frozenFlags &^ Flags(p.now.Flags)
	if missing == 0 {
		return nil
	}
	fd, err := file.Open(p.dir, p.entry.Name, file.Read|file.Final|file.Prompt)
	if err != nil {
		return unwritten(p.path(), err)
	}
	s := setter{path: p.path, entry: p.entry, fd: fd}
	s.flags(missing)
	err = join(s.lost, file.Close(fd))
	for _, u := range s.unset {
		err = join(err, u.Err)
	}
	return err
}

// WriteAt writes like io.WriterAt, from several goroutines if need be.
func (f *FileMaker) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > f.at.entry.Size-int64(len(p)) {
		return 0, problem.Newf(problem.TargetUnsafe, f.at.path(), "the backup has content beyond the size of the file")
	}
	n, err := file.WriteAt(f.fd, p, off)
	if err != nil {
		return n, unwritten(f.at.path(), err)
	}
	end := off + int64(n)
	for old := f.end.Load(); old < end && !f.end.CompareAndSwap(old, end); old = f.end.Load() {
	}
	return n, nil
}

// Commit gives the file its size and all attributes, and then its name, in one
// step: whoever looks sees nothing (or what was there before) or all of it.
// When it fails, nothing is left of the file.
func (f *FileMaker) Commit() ([]Unset, error) {
	if err := f.complete(); err != nil {
		return nil, join(err, f.Abort())
	}
	f.set.allButFlags()
	if f.set.lost != nil {
		return f.set.unset, join(f.set.lost, f.Abort())
	}
	fault.Point("restore:file-written")
	if err := f.show(); err != nil {
		return f.set.unset, join(err, f.Abort())
	}
	fault.Point("restore:file-linked")
	// A file with these flags cannot get a name any more.
	f.set.flags(lateFlags)
	if err := file.Close(f.fd); err != nil {
		return f.set.unset, unwritten(f.at.path(), err)
	}
	return f.set.unset, f.set.lost
}

// complete sees to the size, and where no mark tells of a loss of power, to the
// content being on disk before the name is.
func (f *FileMaker) complete() error {
	if f.end.Load() < f.at.entry.Size {
		if err := f.setSize(); err != nil {
			return err
		}
	}
	if !f.at.maker.covered && f.end.Load() > 0 {
		if err := file.SyncData(f.fd); err != nil {
			return unwritten(f.at.path(), err)
		}
	}
	return nil
}

// show gives the file its name.
func (f *FileMaker) show() error {
	m := f.at.maker
	var err error
	if f.at.dir, err = m.folder.take(); err != nil {
		return unwritten(f.at.path(), err)
	}
	defer f.at.give()
	if f.temporary != "" {
		name := f.temporary
		f.temporary = ""
		return f.at.settle(name)
	}
	return f.at.link(f.fd)
}

// Abort gives the file up; nothing of it remains.
func (f *FileMaker) Abort() error {
	err := file.Close(f.fd)
	if f.temporary != "" {
		dir, takeErr := f.at.maker.folder.take()
		if takeErr == nil {
			err = join(err, file.Remove(dir, f.temporary))
			f.at.maker.folder.give()
		}
		err = join(err, takeErr)
	}
	if err != nil {
		return unwritten(f.at.path(), err)
	}
	return nil
}

// link gives the open file fd its name; if something has that name, without a
// moment in which there is none.
func (p *position) link(fd int) error {
	if p.there {
		name := p.maker.target.temporaryName()
		if err := file.Link(fd, p.dir, name); err != nil {
			return unwritten(p.path(), err)
		}
		return p.settle(name)
	}
	err := file.Link(fd, p.dir, p.entry.Name)
	switch {
	case errors.Is(err, syscall.EEXIST):
		return p.exists()
	case err != nil:
		return unwritten(p.path(), err)
	}
	return nil
}

// settle gives what has a temporary name its own. When it fails, the temporary
// name is gone too.
func (p *position) settle(name string) error {
	err := p.rename(name)
	if err == nil {
		return nil
	}
	if removeErr := file.Remove(p.dir, name); removeErr != nil && !errors.Is(removeErr, syscall.ENOENT) {
		err = join(err, unwritten(p.path(), removeErr))
	}
	return err
}

func (p *position) rename(name string) error {
	var err error
	if p.there {
		err = file.Replace(p.dir, name, p.entry.Name)
		if errors.Is(err, syscall.EPERM) && p.unlock() {
			err = file.Replace(p.dir, name, p.entry.Name)
		}
	} else if err = file.Rename(p.dir, name, p.entry.Name); errors.Is(err, syscall.EINVAL) {
		err = p.renameLooking(name)
	}
	switch {
	case isOneOf(err, syscall.EEXIST, syscall.EISDIR):
		return p.exists()
	case err != nil:
		return unwritten(p.path(), err)
	}
	return nil
}

// renameLooking is for file systems that cannot rename without replacing: who
// makes the same name between the two calls loses it.
func (p *position) renameLooking(name string) error {
	_, err := file.Stat(p.dir, p.entry.Name, file.NoFollow)
	switch {
	case err == nil:
		return syscall.EEXIST
	case !errors.Is(err, syscall.ENOENT):
		return err
	}
	return file.Replace(p.dir, name, p.entry.Name)
}
