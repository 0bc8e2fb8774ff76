package cow

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow/index"
	"stillpoint/internal/snapshot/cow/view"
	"stillpoint/internal/sys/fanotify"
	"stillpoint/internal/sys/inode"
)

// A shown is a target as its view shows it.
type shown struct{ t *target }

func (s shown) Root() uint64                     { return s.t.index.Root().Number }
func (s shown) Inode(number uint64) *index.Inode { return s.t.index.Inode(number) }
func (s shown) Statfs() view.Statfs              { return s.t.statfs }

func (s shown) ReadAt(number uint64, p []byte, offset int64) (int, error) {
	n, err := s.t.shield.ReadAt(number, p, offset)
	return n, errnoFor(err)
}

func (s shown) Seek(number uint64, offset int64, hole bool) (int64, error) {
	seek := s.t.shield.NextData
	if hole {
		seek = s.t.shield.NextHole
	}
	at, err := seek(number, offset)
	return at, errnoFor(err)
}

// errnoFor tells a reader in another process by the errno what it is: a file
// that is gone is stale, and one that is torn has bad content.
func errnoFor(err error) error {
	switch {
	case problem.Is(err, problem.FileGone):
		return errors.Join(syscall.ESTALE, err)
	case problem.Is(err, problem.FileTorn):
		return errors.Join(syscall.EBADMSG, err)
	}
	return err
}

// A fault is a file that could not be kept.
type fault struct {
	number uint64
	code   problem.Code
	reason string
}

// fault is told what happened to a single file.
func (t *target) fault(number uint64, code problem.Code, reason string) {
	t.faultsMu.Lock()
	defer t.faultsMu.Unlock()
	t.faults = append(t.faults, fault{number, code, reason})
}

// Gaps is what could not be kept, as far as that is known by now, and what the
// volume itself does not give.
func (t *target) Gaps() []snapshot.Gap {
	var gaps []snapshot.Gap
	for _, f := range t.index.Faults() {
		path := t.index.Path(f.Dir)
		if f.Name != "" {
			path += "/" + f.Name
		}
		gaps = append(gaps, snapshot.Gap{Path: path, Code: problem.FileUnreadable, Reason: f.Err.Error()})
	}
	t.faultsMu.Lock()
	defer t.faultsMu.Unlock()
	for _, f := range t.faults {
		gaps = append(gaps, snapshot.Gap{Path: t.index.Path(f.number), Code: f.code, Reason: f.reason})
	}
	return gaps
}

// explained tells whether the attributes of an inode were set since the
// instant, such that this became its mtime. What the group has not told yet is
// read first: the events are in its queue before the calls return that caused
// them. It is read often, so that little else can have moved the mtime: a new
// mode or owner leaves it alone, and a later one comes from something else.
func (t *target) explained(number uint64, mtime inode.Time) bool {
	t.faultsMu.Lock()
	defer t.faultsMu.Unlock()
	if t.altered == nil {
		return false // not taken yet
	}
	err := t.touched.Read(func(c *fanotify.Change) {
		n := c.Target.Number()
		if n == 0 {
			return
		}
		fd, err := inode.Place(int(t.filter.root.Fd()), c.Target)
		if err != nil {
			return // gone
		}
		defer syscall.Close(fd)
		if a, err := inode.Stat(fd); err == nil {
			t.note(n, a)
		}
	})
	set, ok := t.altered[number]
	return err == nil && ok && set == mtime
}

// note notes the mtime of an inode just after its attributes were set.
func (t *target) note(number uint64, a inode.Attributes) {
	in := t.index.Inode(number)
	if in == nil {
		return
	}
	known, ok := t.altered[number]
	if !ok {
		known = in.Mtime
	}
	if a.Modified != known && a.Modified.Time().After(t.taken) && a.Modified != a.Changed {
		return // it was written to, and then something was set
	}
	t.altered[number] = a.Modified
}

// Root is the view's root by descriptor.
func (t *target) Root() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.view == nil && t.lost.Load() == nil && !t.released {
		var err error
		if t.view, err = view.Mount(shown{t}, view.Options{}); err != nil {
			t.lose(err)
		}
	}
	if t.view == nil {
		return nowhere
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), t.view.Root().Fd())
}

// nowhere is a path that nothing can be read from.
const nowhere = "/proc/self/fd/none"

// forgetTouched drops what was told before the instant. The volume is frozen.
func (t *target) forgetTouched() error {
	t.faultsMu.Lock()
	defer t.faultsMu.Unlock()
	t.altered = map[uint64]inode.Time{}
	return t.touched.Read(func(*fanotify.Change) {})
}

func statfs(root *os.File) (view.Statfs, error) {
	var st syscall.Statfs_t
	var dir syscall.Stat_t
	if err := errors.Join(syscall.Fstatfs(int(root.Fd()), &st), syscall.Fstat(int(root.Fd()), &dir)); err != nil {
		return view.Statfs{}, err
	}
	return view.Statfs{
		BlockSize: uint32(st.Bsize), Blocks: st.Blocks, Free: st.Bfree, Available: st.Bavail,
		Files: st.Files, FreeFiles: st.Ffree, NameMax: uint32(st.Namelen),
		IOSize: uint32(dir.Blksize),
	}, nil
}
