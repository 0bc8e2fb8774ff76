package tree

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// A setter gives an open file of the target the attributes of an entry, and
// collects what it could not set.
type setter struct {
	path   func() string
	entry  Entry
	fd     int
	place  bool // fd only points at a file that cannot be opened
	exact  bool // the file was there before: it may have what the entry has not
	marked bool // the mark of the directory stays until everything is on disk

	unset    []Unset
	lost     error // the target cannot be written any more
	foreign  bool  // owner or group is not the entry's
	modeSet  bool
	timesSet bool
}

// all sets everything.
func (s *setter) all() error {
	if s.exact {
		s.thaw()
	}
	s.allButFlags()
	if s.entry.Type == Directory && !s.marked {
		_ = file.RemoveXattr(s.fd, marker(markMade)) // mostly there is none
	}
	if s.entry.Type == Directory || s.entry.Type == File {
		s.flags(keptFlags)
	}
	return s.lost
}

// compare reports an owner or a mode that stay different, though they could be
// set.
func (s *setter) compare(t *Target) {
	now, err := file.Stat(s.fd, "", file.Itself)
	if err != nil {
		s.failed("owner and mode", err)
		return
	}
	got, want := rightsOf(now), rights{s.entry.UID, s.entry.GID, s.entry.Mode & 0o7777}
	if got == want {
		return
	}
	can := t.takes(s.fd, now.Device, s.entry)
	different := func(got, want, can uint32) bool { return got != want && can == want }
	if !different(got.uid, want.uid, can.uid) && !different(got.gid, want.gid, can.gid) && !different(got.mode, want.mode, can.mode) {
		return
	}
	err = problem.Newf(problem.TargetExists, s.path(), "the directory has another owner or mode, which stay")
	s.unset = append(s.unset, Unset{Name: s.entry.Name, What: "owner and mode", Err: err})
}

// allButFlags leaves away what may forbid all further change. The order
// matters: a change of owner clears the set-ID bits and file capabilities
// (chown(2)), and an access ACL is part of the mode.
func (s *setter) allButFlags() {
	s.owner()
	s.mode()
	s.xattrs()
	s.times()
	s.look()
}

// failed notes what could not be set.
func (s *setter) failed(what string, err error) {
	if isOneOf(err, syscall.EIO, syscall.EROFS) {
		s.lost = join(s.lost, unwritten(s.path(), err))
		return
	}
	err = problem.Newf(problem.AttributeUnset, s.path(), "%s: %w", what, said(err))
	s.unset = append(s.unset, Unset{Name: s.entry.Name, What: what, Err: err})
}

// thaw takes the flags off that forbid change.
func (s *setter) thaw() {
	if flags, err := file.Flags(s.fd); err == nil && Flags(flags)&frozenFlags != 0 {
		if err := file.SetFlags(s.fd, flags&^uint32(frozenFlags)); err != nil {
			s.failed("flags", err)
		}
	}
}

func (s *setter) owner() {
	err := s.setOwner(int(s.entry.UID), int(s.entry.GID))
	if err == nil {
		return
	}
	s.foreign = true
	// Who is not root may still change to a group of their own.
	if groupErr := s.setOwner(file.Keep, int(s.entry.GID)); groupErr != nil {
		s.failed("group", groupErr)
	}
	if now, statErr := file.Stat(s.fd, "", file.Itself); statErr != nil || now.UID != s.entry.UID {
		s.failed("owner", err)
	}
}

// setOwner refuses the number that the kernel takes for "leave as it is".
func (s *setter) setOwner(uid, gid int) error {
	const none = 1<<32 - 1
	if uid == none || gid == none {
		return syscall.EINVAL
	}
	return file.SetOwner(s.fd, uid, gid)
}

// mode leaves the set-ID bits away where they would give rights of somebody
// else than intended.
func (s *setter) mode() {
	const setID = 0o6000
	mode := s.entry.Mode & 0o7777
	if s.entry.Type == Symlink {
		return
	}
	if s.foreign && mode&setID != 0 {
		mode &^= setID
		s.failed("set-ID bits", errors.New("owner or group is another one"))
	}
	set := file.SetMode
	if s.place {
		set = file.SetPlaceMode
	}
	s.entry.Mode = mode
	if err := set(s.fd, mode); err != nil {
		s.failed("mode", err)
		return
	}
	s.modeSet = true
}

func (s *setter) xattrs() {
	if s.exact {
		s.removeXattrs(func(name string) bool { return !s.hasXattr(name) })
	}
	for _, x := range s.entry.XAttrs {
		if !isMark(x.Name) {
			s.setXattr(x)
		}
	}
}

func (s *setter) setXattr(x XAttr) {
	set := file.SetXattr
	if s.place {
		set = file.SetPlaceXattr
	}
	if err := set(s.fd, x.Name, x.Value); err != nil {
		s.failed("xattr "+x.Name, err)
	}
}

func (s *setter) hasXattr(name string) bool {
	for _, x := range s.entry.XAttrs {
		if x.Name == name {
			return true
		}
	}
	return false
}

// removeXattrs removes what which tells to, but never a label of a security
// module: without one from the backup its policy has decided.
func (s *setter) removeXattrs(which func(name string) bool) {
	if s.place {
		return
	}
	names, err := file.ListXattrs(s.fd)
	if err != nil {
		return // nothing there that could be removed
	}
	for _, name := range names {
		label := strings.HasPrefix(name, "security.") && name != "security.capability"
		if label || isView(name) || isMark(name) || !which(name) {
			continue
		}
		if err := file.RemoveXattr(s.fd, name); err != nil && !errors.Is(err, syscall.ENODATA) {
			s.failed("xattr "+name, err)
		}
	}
}

// disinherit takes away what a new file got from a directory that was in the
// target before: a default ACL, compression, and the like.
func disinherit(fd int) {
	s := setter{fd: fd}
	s.path = func() string { return "" }
	s.removeXattrs(func(name string) bool { return strings.HasPrefix(name, "system.posix_acl_") })
	if flags, err := file.Flags(fd); err == nil && Flags(flags)&keptFlags != 0 {
		_ = file.SetFlags(fd, flags&^uint32(keptFlags)) // what matters is seen when the entry's own are set
	}
}

func (s *setter) times() {
	if err := file.SetModified(s.fd, s.entry.Modified); err != nil {
		s.failed("times", err)
		return
	}
	s.timesSet = true
}

// look finds what file systems change or ignore without saying so.
func (s *setter) look() {
	now, err := file.Stat(s.fd, "", file.Itself)
	if err != nil {
		s.failed("attributes", err)
		return
	}
	if s.modeSet && now.Mode != s.entry.Mode {
		s.failed("mode", fmt.Errorf("the file system made it %#o", now.Mode))
	}
	// Up to two seconds are the granule of some (FAT).
	if d := s.entry.Modified.Sub(now.Modified); s.timesSet && (d < 0 || d >= 2*time.Second) {
		s.failed("times", fmt.Errorf("the file system made it %s", now.Modified.UTC().Format(time.RFC3339Nano)))
	}
}

// flags makes those among which as the entry has them; all at once, and if
// that fails one by one, so that one that is impossible does not cost the others.
func (s *setter) flags(which Flags) {
	want := s.entry.Flags & which
	if want == 0 && !s.exact && s.entry.Type == File {
		return // a new file has none
	}
	now, err := file.Flags(s.fd)
	if err != nil {
		if want != 0 {
			s.failed("flags "+want.String(), err)
		}
		return
	}
	if Flags(now)&which == want {
		return
	}
	if file.SetFlags(s.fd, now&^uint32(which)|uint32(want)) == nil {
		return
	}
	for _, f := range flagLetters {
		one := f.flag & which
		if one == 0 || Flags(now)&one == want&one {
			continue
		}
		next := now&^uint32(one) | uint32(want&one)
		if err := file.SetFlags(s.fd, next); err != nil {
			s.failed("flags "+one.String(), err)
			continue
		}
		now = next
	}
}

// flagLetters are the letters of chattr, those last that forbid change.
var flagLetters = []struct {
	flag   Flags
	letter byte
}{
	{Compressed, 'c'}, {NoCOW, 'C'}, {NoDump, 'd'}, {NoAtime, 'A'},
	{Sync, 'S'}, {DirSync, 'D'}, {AppendOnly, 'a'}, {Immutable, 'i'},
}

// String is the flags as chattr takes them, "+ai".
func (f Flags) String() string {
	letters := []byte{'+'}
	for _, l := range flagLetters {
		if f&l.flag != 0 {
			letters = append(letters, l.letter)
		}
	}
	return string(letters)
}
