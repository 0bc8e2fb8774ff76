package tree

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// A Target is a directory into which a tree is restored. Its path is resolved
// as usual; below it no symbolic link is ever followed. The names and
// attributes that are restored may be hostile.
type Target struct {
	path    string
	folders *descriptors
	root    *Maker
	above   []int // directories that lead to the target, locked
	locked  bool
	alone   bool   // no other restore can be at work in the target
	made    bool   // the target itself was missing
	run     string // names this restore in temporary names
	count   atomic.Uint64

	boot string // of the system, for marks

	closing  sync.Once
	closeErr error

	mu       sync.Mutex
	devices  map[uint64]*Maker        // the first directory met of every file system
	granules map[uint64]time.Duration // of times of change, by device
	rights   map[rightsKey]rights
	marks    []*Maker // directories that Close takes the mark from
}

// OpenTarget opens the directory path, and makes it with its parents where it
// is missing. It fails with the code busy while another restore goes there, to
// a directory in it, or to one that holds it.
func OpenTarget(path string) (*Target, error) { return openTargetIn(path, thisBoot()) }

func openTargetIn(path, boot string) (*Target, error) {
	_, missing := os.Lstat(path)
	if err := os.MkdirAll(path, 0o755); err != nil {
		at := path
		if p := (*fs.PathError)(nil); errors.As(err, &p) {
			at = p.Path
		}
		if errors.Is(err, syscall.ENOTDIR) {
			return nil, problem.New(problem.TargetExists, at, said(err))
		}
		return nil, unwritten(at, err)
	}
	t := &Target{
		path:     path,
		folders:  newDescriptors(),
		boot:     boot,
		run:      newRun(),
		devices:  map[uint64]*Maker{},
		granules: map[uint64]time.Duration{},
		rights:   map[rightsKey]rights{},
	}
	top, info, err := t.folders.top(path)
	if err != nil {
		return nil, unwritten(path, err)
	}
	fd, err := top.take() // until Close
	if err != nil {
		return nil, unwritten(path, err)
	}
	t.root = &Maker{target: t, name: path, folder: top}
	t.made = missing != nil
	t.devices[info.Device] = t.root
	if err := t.lock(fd); err != nil {
		return nil, join(err, t.release())
	}
	if err := t.lockAbove(fd); err != nil {
		return nil, join(err, t.release())
	}
	t.root.readMarks(fd, info)
	if err := t.root.sweep(); err != nil {
		return nil, join(err, t.release())
	}
	return t, nil
}

// lock goes without where directories cannot be locked, as on NFS. What an
// earlier run left behind is not removed then.
func (t *Target) lock(fd int) error {
	err := file.Lock(fd)
	switch {
	case err == nil:
		t.locked = true
	case errors.Is(err, syscall.EWOULDBLOCK):
		return problem.Newf(problem.Busy, t.path, "another restore goes to this directory, or to one in it")
	case errors.Is(err, syscall.EIO):
		return unwritten(t.path, err)
	}
	return nil
}

// lockAbove takes shared locks on all directories that lead to the target, so
// that no restore goes to one of them meanwhile: each would remove the
// temporary names of the other. Where one of them cannot be locked, nothing
// that looks left behind is removed.
func (t *Target) lockAbove(fd int) error {
	t.alone = t.locked
	for {
		info, err := file.Stat(fd, "", file.Itself)
		if err != nil {
			return unwritten(t.path, err)
		}
		up, err := t.folders.openQuietly(fd, "..", file.Read|file.Directory)
		if err != nil { // no right to read it
			t.alone = false
			return nil
		}
		t.above = append(t.above, up)
		over, err := file.Stat(up, "", file.Itself)
		if err != nil {
			return unwritten(t.path, err)
		}
		if identityOf(over) == identityOf(info) && over.Mount == info.Mount {
			return nil // ".." of the root is the root
		}
		err = file.LockShared(up)
		switch {
		case errors.Is(err, syscall.EWOULDBLOCK):
			return problem.Newf(problem.Busy, t.path, "another restore goes to a directory that holds this one")
		case err != nil:
			t.alone = false
		}
		fd = up
	}
}

// Root is the target itself.
func (t *Target) Root() *Maker { return t.root }

// Keep makes Finish of the root leave its attributes as they are, if it was
// there before.
func (t *Target) Keep() { t.root.keep = !t.made }

// Locked tells whether the target is locked against other restores, which
// some network file systems do not support.
func (t *Target) Locked() bool { return t.locked }

// Close writes everything to the devices and gives the target up. Only when it
// succeeds is what was restored safe from a loss of power. It may be called
// twice.
func (t *Target) Close() error {
	t.closing.Do(func() {
		var errs []error
		for _, m := range t.devices {
			errs = append(errs, m.sync())
		}
		if t.closeErr = join(errs...); t.closeErr == nil {
			t.closeErr = t.unmark()
		}
		t.closeErr = join(t.closeErr, t.release())
	})
	return t.closeErr
}

func (t *Target) release() error {
	t.root.folder.give()
	return join(closeAll(t.above), t.folders.close())
}

// met notes the file systems that Close has to sync.
func (t *Target) met(device uint64, m *Maker) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.devices[device] == nil {
		t.devices[device] = m
	}
}

func (m *Maker) sync() error {
	fd, err := m.folder.take()
	if err != nil {
		return unwritten(m.Path(), err)
	}
	defer m.folder.give()
	if err := file.SyncFS(fd); err != nil {
		return unwritten(m.Path(), err)
	}
	return nil
}

// Temporary names are this, the run, a dash and a number.
const temporary = ".stillpoint-restore-"

// newRun makes a random word with a check in it, so that a temporary name of
// ours is not just any name that looks alike.
func newRun() string {
	b := make([]byte, 8)
	rand.Read(b) // never fails
	word := hex.EncodeToString(b)
	return word + runCheck(word)
}

func runCheck(word string) string {
	sum := sha256.Sum256([]byte(temporary + word))
	return hex.EncodeToString(sum[:4])
}

func (t *Target) temporaryName() string {
	return temporary + t.run + "-" + strconv.FormatUint(t.count.Add(1), 10)
}

// temporaryRun returns the run that made a temporary name, "" for other names.
func temporaryRun(name string) string {
	rest, _ := strings.CutPrefix(name, temporary)
	run, number, _ := strings.Cut(rest, "-")
	if len(name) == len(rest) || len(run) != 24 || run[16:] != runCheck(run[:16]) {
		return ""
	}
	if _, err := strconv.ParseUint(number, 10, 64); err != nil {
		return ""
	}
	return run
}

// sweep removes what earlier runs left in the directory when they were killed.
func (m *Maker) sweep() error {
	if !m.target.alone {
		return nil
	}
	fd, err := m.folder.take()
	if err != nil {
		return unwritten(m.Path(), err)
	}
	defer m.folder.give()
	var stale []string
	buf := listBuffers.Get().(*[]byte)
	defer listBuffers.Put(buf)
	err = file.List(fd, *buf, func(name []byte, kind file.Kind, _ uint64) error {
		if run := temporaryRun(string(name)); run != "" && run != m.target.run && kind != file.Folder {
			stale = append(stale, string(name))
		}
		return nil
	})
	for _, name := range stale {
		err = join(err, file.Remove(fd, name))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return unwritten(m.Path(), err)
	}
	return nil
}

// newFile makes an empty file in dir: one without a name, or where the file
// system has none such, one with a temporary name.
func (t *Target) newFile(dir int) (fd int, name string, err error) {
	fd, err = file.Open(dir, ".", file.Write|file.Unnamed)
	// A file system without says EOPNOTSUPP, and some servers behind one EINVAL
	// or ENOSYS; one that does not know the flag takes it for an attempt to
	// write to a directory (open(2)).
	if !isOneOf(err, syscall.EOPNOTSUPP, syscall.EISDIR, syscall.EINVAL, syscall.ENOSYS) {
		return fd, "", err
	}
	name = t.temporaryName()
	fd, err = file.Open(dir, name, file.Write|file.New|file.Final)
	return fd, name, err
}
