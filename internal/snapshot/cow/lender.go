package cow

import (
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow/index"
	"stillpoint/internal/snapshot/direct"
	"stillpoint/internal/sys/file"
)

// A lender answers who reads a target without its view. It says what the view
// would say.
type lender struct{ t *target }

// within does something with a snapshot that is not released meanwhile.
func (h lender) within(do func() error) error {
	if !h.t.lent.begin() {
		return problem.Newf(problem.SnapshotLost, h.t.ID(), "it was released")
	}
	defer h.t.lent.done()
	err := do()
	if lost := h.t.shield.Err(); lost != nil {
		return problem.New(problem.SnapshotLost, h.t.ID(), lost)
	}
	return errnoFor(err)
}

func (h lender) inode(number uint64) (*index.Inode, error) {
	if in := h.t.index.Inode(number); in != nil {
		return in, nil
	}
	return nil, syscall.ESTALE
}

// Top is the root.
func (h lender) Top() (i snapshot.Item, err error) {
	err = h.within(func() error {
		i = h.item("", h.t.index.Root())
		return nil
	})
	return i, err
}

// Lookup finds a name.
func (h lender) Lookup(number uint64, name string) (i snapshot.Item, err error) {
	err = h.within(func() error {
		dir, err := h.directory(number)
		if err != nil {
			return err
		}
		child, ok := dir.Child(name)
		if !ok {
			return syscall.ENOENT
		}
		in, err := h.inode(child)
		if err == nil {
			i = h.item(name, in)
		}
		return err
	})
	return i, err
}

func (h lender) directory(number uint64) (*index.Inode, error) {
	in, err := h.inode(number)
	if err == nil && !in.IsDir() {
		err = syscall.ENOTDIR
	}
	return in, err
}

// List lists a directory.
func (h lender) List(number uint64) (l snapshot.Listing, err error) {
	err = h.within(func() error {
		dir, err := h.directory(number)
		if err != nil {
			return err
		}
		for _, c := range dir.Children {
			in, err := h.inode(c.Number)
			switch {
			case err != nil:
				return err
			case direct.Large(len(dir.Children)):
				l.Names = append(l.Names, snapshot.Name{Name: c.Name, Kind: kindOf(in), Inode: in.Number})
			default:
				l.Items = append(l.Items, h.item(c.Name, in))
			}
		}
		return nil
	})
	return l, err
}

// Describe describes inodes.
func (h lender) Describe(numbers []uint64) (all []snapshot.Item, err error) {
	err = h.within(func() error {
		all = make([]snapshot.Item, len(numbers))
		for i, n := range numbers {
			in, err := h.inode(n)
			if err != nil {
				return err
			}
			all[i] = h.item("", in)
		}
		return nil
	})
	return all, err
}

// ReadAt reads content.
func (h lender) ReadAt(number uint64, p []byte, offset int64) (n int, err error) {
	err = h.within(func() (err error) {
		n, err = h.t.shield.ReadAt(number, p, offset)
		return err
	})
	return n, err
}

// Next finds holes and data.
func (h lender) Next(number uint64, offset int64, hole bool) (at int64, err error) {
	seek := h.t.shield.NextData
	if hole {
		seek = h.t.shield.NextHole
	}
	err = h.within(func() (err error) {
		at, err = seek(number, offset)
		return err
	})
	return at, err
}

// Verify verifies what was read of a live file.
func (h lender) Verify(number uint64) error {
	return h.within(func() error { return h.t.shield.Verify(number) })
}

func kindOf(in *index.Inode) file.Kind { return file.Kind(in.Mode & syscall.S_IFMT) }

// item describes an inode.
func (h lender) item(name string, in *index.Inode) snapshot.Item {
	i := snapshot.Item{
		Name: name,
		Info: file.Info{
			Kind: kindOf(in), Mode: in.Mode & 0o7777, UID: in.UID, GID: in.GID, Links: uint64(in.Nlink),
			Size: in.Size, Blocks: in.Blocks, Modified: in.Mtime.Time(), Changed: in.Ctime.Time(),
			Inode: in.Number, Device: h.t.device, Node: uint64(in.Rdev), // which has all bits of a device number of Linux
		},
		Flags: in.Flags, Target: in.Target, Handle: in.Handle.Pack(),
	}
	for _, x := range in.XAttrs {
		i.XAttrs = append(i.XAttrs, snapshot.XAttr(x))
	}
	return i
}

var _ direct.Holder = lender{}
