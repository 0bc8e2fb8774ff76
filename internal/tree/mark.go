package tree

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"stillpoint/internal/sys/file"
)

// Two attributes mark directories while they are restored. Their value is the
// boot of the system in which that was.
//
// One is on a directory from its making to its Finish, so that a later run tells
// one that an earlier run left unfinished from one that was there. Where the
// directory above was there before, it stays until everything is on disk, and
// stands for all that is below.
//
// The other is on a directory that was there before, from the first file that is
// made in it until everything is on disk, and stands for those.
//
// A run that is killed leaves whole files. But after a loss of power a file may
// have its name and its times without its content, because no file system
// writes them in that order. So a later run that finds the mark of another boot
// restores again what it would have taken for the same.
const (
	markMade    = "stillpoint.restoring"
	markEntered = "stillpoint.entered"

	markBoot = "boot " // begins the value; with another one nothing is known to be lost
)

// marker is the full name. Who is not root can set attributes of users only.
func marker(mark string) string {
	if os.Geteuid() == 0 {
		return "trusted." + mark
	}
	return "user." + mark
}

// isMark tells an attribute that is of a restore and no part of a backup.
func isMark(name string) bool {
	_, mark, _ := strings.Cut(name, ".")
	return (mark == markMade || mark == markEntered) && (name == "trusted."+mark || name == "user."+mark)
}

func thisBoot() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // no mark then: each file is synced by itself
	}
	return markBoot + strings.TrimSpace(string(b))
}

// readMarks looks at a directory that was there before.
func (m *Maker) readMarks(fd int, now file.Info) {
	if m.parent != nil {
		m.lostBelow = m.parent.lostBelow
	}
	m.unfinished = justMade(fd, now)
	names, err := file.ListXattrs(fd)
	if err != nil {
		return
	}
	for _, name := range names {
		if name != marker(markMade) && name != marker(markEntered) {
			continue
		}
		value, err := file.GetXattr(fd, name)
		lost := err == nil && strings.HasPrefix(string(value), markBoot) && string(value) != m.target.boot
		made := name == marker(markMade)
		m.lostBelow = m.lostBelow || lost && made
		m.lost = m.lost || lost
		m.unfinished = m.unfinished || made
		m.old = m.old || lost || made
		m.covered = true
		m.target.note(m)
	}
	m.lost = m.lost || m.lostBelow
	m.unfinished = m.unfinished || m.lostBelow
}

// justMade tells a directory that a run was killed over before it was marked:
// it is empty, and as MakeDirectory makes it.
func justMade(fd int, now file.Info) bool {
	if now.Mode != 0o700 || int(now.UID) != os.Geteuid() {
		return false
	}
	errFound := errors.New("not empty")
	return file.List(fd, make([]byte, 4096), func([]byte, file.Kind, uint64) error { return errFound }) == nil
}

// markNew marks a directory that was just made.
func (m *Maker) markNew(fd int) {
	set := m.setMark(fd, markMade)
	if m.parent.fresh {
		m.covered = m.parent.covered
		return
	}
	m.old = set // if it is never finished, the mark stays
	m.covered = set
	if set {
		m.target.note(m)
	}
}

// touch comes before something other than a directory is made in the directory.
func (m *Maker) touch(fd int) {
	if m.fresh {
		return
	}
	m.touched.Do(func() {
		if !m.noted && m.setMark(fd, markEntered) {
			m.covered = true
			m.target.note(m)
		}
	})
}

// setMark tells whether there is one then. Some file systems have none.
func (m *Maker) setMark(fd int, mark string) bool {
	boot := m.target.boot
	return boot != "" && file.SetXattr(fd, marker(mark), []byte(boot)) == nil
}

// note remembers marks that Close takes away.
func (t *Target) note(m *Maker) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !m.noted {
		t.marks = append(t.marks, m)
	}
	m.noted = true
}

// unmark takes the marks away, when everything is on disk. What an earlier run
// began stays marked until a run has gone through all of the directory.
func (t *Target) unmark() error {
	var errs []error
	for _, m := range t.marks {
		if m.finished || !m.old {
			errs = append(errs, m.unmark())
		}
	}
	return join(errs...)
}

func (m *Maker) unmark() error {
	fd, err := m.folder.take()
	if isOneOf(err, errReplaced, syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP) {
		return nil // it was moved away, with its mark
	}
	if err != nil {
		return unwritten(m.Path(), err)
	}
	defer m.folder.give()
	for _, mark := range []string{markMade, markEntered} {
		remove := func() error { return file.RemoveXattr(fd, marker(mark)) }
		err := remove()
		if errors.Is(err, syscall.EPERM) { // it became immutable
			err = melted(fd, remove)
		}
		if err != nil && !errors.Is(err, syscall.ENODATA) {
			return unwritten(m.Path(), err)
		}
	}
	return nil
}
