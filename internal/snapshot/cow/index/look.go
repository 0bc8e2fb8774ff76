package index

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/inode"
)

// A worker looks at files, in one goroutine at a time.
type worker struct {
	b      *Builder
	xattrs file.Xattrs
	list   []byte // for names of directories
}

// A spot is a way to an inode for calls that take no place.
type spot struct {
	dir  int
	name string
	at   file.At
}

// magic is the spot of the very inode of fd: a link in /proc. It takes twice
// the time of a name.
func (b *Builder) magic(fd int) spot { return spot{b.proc, strconv.Itoa(fd), file.Follow} }

func newWorker(b *Builder) *worker { return &worker{b: b, list: make([]byte, 64<<10)} }

// A sight is the outcome of a look.
type sight struct {
	in           *Inode
	isNew, isDir bool
}

// look describes the inode of fd, a descriptor opened as a place, puts it into
// the table, and takes the descriptor over. As long as that is open the number
// cannot be used again, so what is put last is the inode that lives. A new one
// is in the table even when an error comes with it.
//
// at is where it was found. It may be another inode's by now, whose attributes
// are then taken for those of this one: but what lost its name is noted, and
// looked at again.
func (w *worker) look(fd int, at spot) (s sight, err error) {
	b := w.b
	seen, err := w.describe(fd, at)
	if errors.Is(err, syscall.ENOENT) {
		seen, err = w.describe(fd, b.magic(fd))
	}
	if err != nil {
		return s, errors.Join(err, w.leave(fd, 0))
	}
	var earlier *Inode
	s.isDir = seen.IsDir()
	s.in, earlier, s.isNew = b.table.put(&seen)
	if earlier != nil {
		b.lead(earlier, nil)
		b.empty(earlier)
	}
	if s.isNew {
		if b.frozen && b.budget.Add(-1) < 0 {
			err = &TooLateError{Most: b.o.Late}
		}
		if n := b.total.Add(1); n%4096 == 0 && b.o.Progress != nil {
			b.o.Progress(int(n))
		}
		if b.o.Keeper != nil && (seen.IsRegular() || s.isDir) {
			return s, errors.Join(err, b.o.Keeper.Keep(fd))
		}
	}
	return s, errors.Join(err, w.leave(fd, seen.Nlink))
}

// leave closes a descriptor, unless that could be the end of a deleted file,
// which would wait for the thaw.
func (w *worker) leave(fd int, links uint32) error {
	if w.b.frozen && links == 0 {
		return w.b.late.Keep(fd)
	}
	return file.Close(fd)
}

// describe reads everything about an inode but the names in it.
func (w *worker) describe(fd int, at spot) (in Inode, err error) {
	a, err := inode.Stat(fd)
	if err != nil {
		return in, err
	}
	in = Inode{
		Number: a.Number, Mode: a.Mode, UID: a.UID, GID: a.GID, Nlink: a.Links, Rdev: uint32(a.Rdev), Flags: a.Flags,
		Size: a.Size, Blocks: a.Blocks, Atime: a.Accessed, Mtime: a.Modified, Ctime: a.Changed, Btime: a.Born,
	}
	if in.Handle, err = inode.Of(fd, ""); err != nil {
		return in, err
	}
	if in.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		if in.Target, err = file.Readlink(fd, ""); err != nil {
			return in, err
		}
	}
	if in.IsRegular() || in.IsDir() {
		flags, err := w.flags(fd, at)
		if err != nil {
			return in, err
		}
		in.Flags |= flags
	}
	in.XAttrs, err = w.attributes(at)
	return in, err
}

// flags returns inode flags. Before Linux 6.17 they need an open file: where
// that cannot be had (somebody holds a lease on it, it is encrypted) statx has
// told most of them. Under the freeze no file is opened: a program that is asked
// for its permission (a virus scanner) might wait for the thaw.
func (w *worker) flags(fd int, at spot) (uint32, error) {
	flags, err := inode.Flags(at.dir, at.name, at.at == file.Follow)
	switch {
	case err == nil:
		return flags, nil
	case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOTTY):
		return 0, nil
	case !errors.Is(err, syscall.ENOSYS) && !errors.Is(err, syscall.EPERM):
		return 0, err
	case w.b.frozen:
		return 0, nil
	}
	open, err := file.Open(w.b.proc, w.b.magic(fd).name, file.Read|file.Prompt|file.Quiet)
	if err != nil {
		return 0, nil
	}
	flags, err = file.Flags(open)
	if err != nil {
		flags = 0
	}
	return flags & keptFlags, file.Close(open)
}

// keptFlags are those that inode.Flags and statx tell, too: of chattr cSiadAxPEV.
const keptFlags = 0x04 | 0x08 | 0x10 | 0x20 | 0x40 | 0x80 | 0x800 | 0x10_0000 | 0x200_0000 | 0x2000_0000

// dirFlags are those of directories that only an open one tells: chattr D.
const dirFlags = 0x1_0000

// attributes reads the extended attributes.
func (w *worker) attributes(at spot) ([]XAttr, error) {
	names, err := w.xattrs.List(at.dir, at.name, at.at)
	if errors.Is(err, syscall.EOPNOTSUPP) || err == nil && len(names) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := make([]XAttr, 0, len(names))
	for _, name := range names {
		value, err := w.xattrs.Get(at.dir, at.name, at.at, name)
		if errors.Is(err, syscall.ENODATA) {
			continue // removed meanwhile, which is noted
		}
		if err != nil {
			return nil, err
		}
		all = append(all, XAttr{name, string(value)})
	}
	slices.SortFunc(all, func(a, b XAttr) int { return cmp.Compare(a.Name, b.Name) })
	return w.b.shared.intern(all), nil
}

// Interned are sets of extended attributes, each once: most files have the
// same as many others.
type interned struct {
	mu  sync.Mutex
	all map[string][]XAttr
}

func (i *interned) intern(set []XAttr) []XAttr {
	var key []byte
	for _, a := range set {
		key = strconv.AppendInt(append(append(key, a.Name...), 0), int64(len(a.Value)), 10)
		key = append(append(key, 0), a.Value...)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if have, ok := i.all[string(key)]; ok {
		return have
	}
	if i.all == nil {
		i.all = map[string][]XAttr{}
	}
	i.all[string(key)] = set
	return set
}

// inodes looks at inodes that are in the table again.
func (w *worker) inodes(handles []inode.Handle) error {
	b := w.b
	for _, h := range handles {
		if !b.table.holds(h) {
			continue
		}
		fd, err := inode.Place(b.mount, h)
		if err == nil {
			_, err = w.look(fd, b.magic(fd))
		}
		switch {
		case err == nil:
			b.fault(place{dir: h.Number()}, nil)
		case errors.Is(err, syscall.ESTALE):
			b.mu.Lock()
			b.vanished = append(b.vanished, h)
			b.mu.Unlock()
		case isDamage(err):
			b.fault(place{dir: h.Number()}, err)
		default:
			return err
		}
	}
	return nil
}

// isDamage tells whether an error is of one file only. The file systems say
// EUCLEAN and EBADMSG for EFSCORRUPTED and EFSBADCRC.
func isDamage(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EUCLEAN) || errors.Is(err, syscall.EBADMSG)
}

// fault notes that something cannot be looked at, or that it can.
func (b *Builder) fault(at place, err error) {
	if err == nil && !b.faulty.Load() {
		return
	}
	b.faulty.Store(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		delete(b.faults, at)
	} else {
		b.faults[at] = err
	}
}
