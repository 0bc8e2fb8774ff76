package backup

import (
	"io/fs"
	"os"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/tree"
)

// What follows is what tree.Maker decides, looked at instead of done.

// A rehearsed is one name that is no directory, and what has it now.
type rehearsed struct {
	at    *way
	rec   *repository.Record
	now   fs.FileInfo // nil: nothing
	o     tree.Overwrite
	there bool // it would be there afterwards, as in the backup
}

func errExists() error {
	return problem.Newf(problem.TargetExists, "", "something different is already there")
}

// leaf tells what becomes of a name; of a hard link to one that was there
// before, too.
func (r *rehearsal) leaf(n *rehearsed, vol string) (what string, err error) {
	if n.rec.Links <= 1 || n.rec.Inode == 0 {
		return n.wouldBe(n.same())
	}
	key := linkKey{vol, n.rec.Inode, n.rec.Type, n.rec.Object}
	first := r.links[key]
	if first == nil {
		r.links[key] = n
		what, err = n.wouldBe(n.same())
		n.there = err == nil && what != "keep"
		if what != "" {
			n.now = nil // it would be another one
		}
		return what, err
	}
	if !first.there {
		return n.wouldBe(n.same())
	}
	return n.wouldBe(n.isLike() && n.o != tree.Always || n.now != nil && first.now != nil && os.SameFile(n.now, first.now))
}

// wouldBe is the word for what becomes of a name, "" where it is the same, or
// the exception that the restore makes.
func (n *rehearsed) wouldBe(same bool) (string, error) {
	switch {
	case n.now == nil:
		return "make", nil
	case same:
		return "", nil
	case n.now.IsDir() && n.o != tree.Always:
		return "", errExists()
	case n.now.IsDir() && !n.at.empty(n.rec.Name):
		return "", problem.Newf(problem.TargetExists, "", "a directory that is not empty is in its place")
	case n.o == tree.Always, n.o == tree.Newer && n.rec.Modified.After(n.now.ModTime()):
		return "replace", nil
	case n.o == tree.Newer:
		return "keep", nil
	}
	return "", errExists()
}

// same tells whether what is there passes for what the backup holds.
func (n *rehearsed) same() bool {
	if n.now == nil {
		return false
	}
	switch n.rec.Type {
	case tree.File:
		return n.o != tree.Always && n.isLike() && n.ours()
	case tree.Symlink:
		to, err := os.Readlink(n.at.spot.Root() + "/" + n.rec.Name)
		return err == nil && to == n.rec.Target
	}
	kinds := map[tree.Type]fs.FileMode{
		tree.FIFO: fs.ModeNamedPipe, tree.Socket: fs.ModeSocket,
		tree.Char: fs.ModeDevice | fs.ModeCharDevice, tree.Block: fs.ModeDevice,
	}
	return n.now.Mode().Type() == kinds[n.rec.Type] && n.stat().Rdev == n.rec.Device
}

// isLike compares the size and the time of files.
func (n *rehearsed) isLike() bool {
	return n.rec.Type == tree.File && n.now != nil && n.now.Mode().IsRegular() &&
		n.now.Size() == n.rec.Size && n.now.ModTime().Equal(n.rec.Modified)
}

// ours tells whether a file can be what an earlier restore made.
func (n *rehearsed) ours() bool {
	st := n.stat()
	switch {
	case uint64(st.Nlink) > max(1, n.rec.Links):
		return false
	case os.Geteuid() != 0:
		return st.Uid == n.rec.UID || int(st.Uid) == os.Geteuid()
	}
	return st.Uid == n.rec.UID && st.Gid == n.rec.GID && st.Mode&0o7777 == n.rec.Mode&0o7777
}

func (n *rehearsed) stat() *syscall.Stat_t { return n.now.Sys().(*syscall.Stat_t) }

// empty tells whether nothing is in the directory name.
func (w *way) empty(name string) bool {
	d, err := os.OpenFile(w.spot.Root()+"/"+name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer d.Close()
	names, _ := d.Readdirnames(1)
	return len(names) == 0
}

// dirWouldBe is the word for what becomes of a directory where something is
// already.
func dirWouldBe(now fs.FileInfo, o tree.Overwrite) (string, error) {
	switch {
	case now.IsDir():
		return "", nil
	case o == tree.Always:
		return "replace", nil
	case now.Mode()&fs.ModeSymlink != 0:
		return "", problem.Newf(problem.TargetUnsafe, "", "a symbolic link is where a directory belongs")
	}
	return "", errExists()
}

// compare is the exception that a directory makes which was there before and
// keeps its owner and mode; unless it is only one that was never finished.
func (r *rehearsal) compare(at *way, rec *repository.Record, below bool) error {
	if r.o.Overwrite != tree.Never || at.spot == nil {
		return nil
	}
	n, err := tree.Open(tree.Source{Path: at.path, Root: at.spot.Root()})
	if n == nil {
		return err
	}
	defer n.Close()
	e := &n.Entry
	if e.UID == rec.UID && e.GID == rec.GID && e.Mode&0o7777 == rec.Mode&0o7777 {
		return nil
	}
	if below && (marked(n) || e.Mode == 0o700 && int(e.UID) == os.Geteuid() && at.empty(".")) {
		return nil
	}
	return problem.Newf(problem.TargetExists, "", "the directory has another owner or mode, which stay")
}
