package index

import (
	"fmt"
	"path"
	"slices"
)

// An Index is what a volume's selected trees were at one instant. It does not
// change, but for Thawed and Close; what it returns must not be changed.
type Index struct {
	table   *table
	root    *Inode
	faults  []Fault
	orphans []uint64     // what they hold is in no directory any more
	done    func() error // ends what was for building
}

// A Fault is a name that could not be looked at, and so is not in the index:
// the file system is damaged there, or its device.
type Fault struct {
	Dir  uint64
	Name string // empty: the whole directory could not be read
	Err  error
}

// Inode returns the inode of a number; nil if it is not indexed.
func (x *Index) Inode(number uint64) *Inode {
	if in := x.table.peek(number); in.indexed() {
		return in
	}
	return nil
}

// Root is the root directory of the volume.
func (x *Index) Root() *Inode { return x.root }

// Len is the number of indexed inodes.
func (x *Index) Len() int { return int(x.table.count.Load()) }

// Faults names what is missing.
func (x *Index) Faults() []Fault { return x.faults }

// Path returns a path of an inode, for messages: "." for the root; one of
// several if it has several names, and then it may take long.
func (x *Index) Path(number uint64) string {
	if p, ok := x.pathUp(x.Inode(number)); ok {
		return p
	}
	if p, ok := x.pathDown(x.root, number); ok {
		return p
	}
	return fmt.Sprintf("inode %d", number)
}

// pathUp goes from directory to directory. The last one that got a name for a
// file can have lost it again while another one has it still.
func (x *Index) pathUp(in *Inode) (string, bool) {
	p := "."
	for ; in != x.root; in = in.parent {
		if !in.indexed() || in.parent == nil {
			return "", false
		}
		i := slices.IndexFunc(in.parent.Children, func(c Child) bool { return c.Number == in.Number })
		if i < 0 {
			return "", false
		}
		p = path.Join(in.parent.Children[i].Name, p)
	}
	return p, true
}

// pathDown looks at everything below dir.
func (x *Index) pathDown(dir *Inode, number uint64) (string, bool) {
	for _, c := range dir.Children {
		if c.Number == number {
			return c.Name, true
		}
		if in := x.Inode(c.Number); in != nil {
			if p, ok := x.pathDown(in, number); ok {
				return path.Join(c.Name, p), true
			}
		}
	}
	return "", false
}

// Thawed does what had to wait for the end of the freeze: it lets go of deleted
// files, and of what was in directories that are not in the index any more. It
// must be called before Close, and may be called while others read the index.
func (x *Index) Thawed() error {
	done := map[*Inode]bool{} // one can have lost its last name twice
	for todo := x.orphans; len(todo) > 0; {
		in := x.table.peek(todo[len(todo)-1])
		todo = todo[:len(todo)-1]
		if in == nil || in.indexed() || done[in] {
			continue
		}
		done[in] = true
		for _, c := range in.Children {
			if x.table.drop(c.Number) == 0 {
				todo = append(todo, c.Number)
			}
		}
	}
	x.orphans = nil
	return x.end()
}

func (x *Index) end() error {
	done := x.done
	if done == nil {
		return nil
	}
	x.done = nil
	return done()
}

// Close lets go of everything. The volume must not be frozen.
func (x *Index) Close() error {
	err := x.end()
	x.faults, x.orphans = nil, nil
	return err
}
