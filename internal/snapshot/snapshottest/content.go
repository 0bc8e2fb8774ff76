package snapshottest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/tool"
)

func contentChecks() []check {
	return []check{
		{"state", checkState},
		{"selected-paths", checkSelected},
		{"names", checkNames},
		{"instant", checkInstant},
		{"read-only", checkReadOnly},
		{"two-readings", checkTwoReadings},
		{"other-process", checkOtherProcess},
		{"mounts-below", checkMountsBelow},
	}
}

// fill makes one of everything in dir.
func (c *C) fill(dir string) {
	c.Helper()
	in := func(name string) string { return filepath.Join(dir, name) }
	c.must(os.Mkdir(in("dir"), 0o755))
	c.folder(in("dir/deep"))
	for _, d := range []string{"dir/deep/deeper", "empty", "odd"} {
		c.must(os.MkdirAll(in(d), 0o755))
	}
	c.write(in("plain"), pattern(300_000, 1))
	c.write(in("nothing"), nil)
	c.write(in("small"), []byte("small"))
	c.write(in("dir/deep/deeper/file"), pattern(5000, 2))
	c.write(in("odd/new\nline \xff\"'"), []byte("odd"))
	c.write(in("odd/"+strings.Repeat("l", 255)), []byte("long"))
	c.must(os.Link(in("plain"), in("dir/link")))
	c.must(os.Symlink("../no/where", in("dir/symlink")))
	c.must(syscall.Mkfifo(in("fifo"), 0o640))
	c.sparse(in("sparse"))
	c.must(os.Chmod(in("small"), os.ModeSetuid|0o751))
	c.must(os.Chmod(in("empty"), os.ModeSticky|0o777))
	c.xattr(in("plain"), "user.one", "1")
	c.xattr(in("dir"), "user.binary", "\x00\xff")
	c.xattr(in("small"), "system.posix_acl_access", accessList())
	if c.isRoot() {
		c.fillAsRoot(in)
	}
	for i, p := range []string{"plain", "dir/deep", "fifo", "."} {
		at := time.Unix(1_000_000_000+int64(i), 123_456_789)
		c.must(os.Chtimes(in(p), at, at))
	}
	c.must(os.Chtimes(in("sparse"), time.Unix(-5, 1), time.Unix(-5, 1)))
}

func (c *C) fillAsRoot(in func(string) string) {
	c.Helper()
	c.must(syscall.Mknod(in("char"), syscall.S_IFCHR|0o600, 1<<8|3))
	c.must(syscall.Mknod(in("block"), syscall.S_IFBLK|0o660, 7<<8|200))
	c.must(syscall.Mknod(in("socket"), syscall.S_IFSOCK|0o600, 0))
	c.xattr(in("dir/deep"), "trusted.t", "trusted")
	// VFS_CAP_REVISION_2, cap_net_bind_service (linux/capability.h).
	c.xattr(in("nothing"), "security.capability", "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	c.must(os.Lchown(in("dir/symlink"), 7, 8))
	c.must(os.Lchown(in("dir/deep/deeper/file"), 1234, 5678))
}

func (c *C) write(path string, b []byte) {
	c.Helper()
	c.must(os.WriteFile(path, b, 0o644))
}

// pattern is n bytes that differ from place to place.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>8) ^ byte(i*7) ^ seed
	}
	return b
}

// sparse makes a file with holes of whole MiB.
func (c *C) sparse(path string) {
	c.Helper()
	f, err := os.Create(path)
	c.must(err)
	defer f.Close()
	for i := range int64(3) {
		_, err := f.WriteAt(pattern(1<<20, byte(i)), (2*i+1)<<20)
		c.must(err)
	}
	c.must(f.Truncate(8 << 20))
	c.must(f.Sync())
}

func (c *C) xattr(path, name, value string) {
	c.Helper()
	fd, err := file.Open(file.Here, path, file.Read)
	c.must(err)
	defer file.Close(fd)
	c.must(file.SetXattr(fd, name, []byte(value)))
}

// accessList is a POSIX ACL as the kernel has it (linux/posix_acl_xattr.h):
// owner rwx, user 4321 r, group r-x, mask r-x, others x.
func accessList() string {
	var b bytes.Buffer
	none := ^uint32(0)
	for _, v := range []any{uint32(2),
		[]uint16{0x01, 7}, none, []uint16{0x02, 4}, uint32(4321), []uint16{0x04, 5}, none,
		[]uint16{0x10, 5}, none, []uint16{0x20, 1}, none} {
		_ = binary.Write(&b, binary.LittleEndian, v) // cannot fail
	}
	return b.String()
}

// A snapshot shows everything as it was, whatever happens to the volume.
func checkState(c *C) {
	vs := c.host.Volumes(c, 1)
	c.fill(vs[0].Dir)
	want := c.describe(vs[0].Dir)
	snaps := c.take(c.host.New(c), vs)
	c.clear(vs[0].Dir)
	c.write(filepath.Join(vs[0].Dir, "new"), pattern(1<<20, 9))
	c.same("snapshot", c.show(snaps[0], "."), want)
	if err := snaps[0].Err(); err != nil {
		c.Errorf("not good: %v", err)
	}
}

// clear removes everything in dir. What Folder has mounted there stays, empty.
func (c *C) clear(dir string) {
	c.Helper()
	entries, err := os.ReadDir(dir)
	c.must(err)
	for _, e := range entries {
		err := os.RemoveAll(filepath.Join(dir, e.Name()))
		if c.host.Folder == nil || !errors.Is(err, syscall.EBUSY) {
			c.must(err)
		}
	}
}

// Of selected paths everything is shown, and the directories that lead there.
func checkSelected(c *C) {
	vs := c.host.Volumes(c, 1)
	c.fill(vs[0].Dir)
	want := c.describe(vs[0].Dir)
	paths := []string{"dir/deep", "small"}
	snaps := c.commit(c.prepare(c.host.New(c), []snapshot.Target{{Volume: vs[0].Volume, Paths: paths}}))
	got := c.show(snaps[0], ".")
	for _, p := range paths {
		c.same("snapshot", got.below(p), want.below(p))
	}
}

// Snapshots are those of the targets, in their order, with ids of their own.
func checkNames(c *C) {
	vs := c.host.Volumes(c, 2)
	slices.Reverse(vs)
	p := c.host.New(c)
	if p.Name() == "" || p.Name() != strings.ToLower(p.Name()) || p.Name() != c.host.New(c).Name() {
		c.Errorf("the name %q will not do", p.Name())
	}
	id := newID()
	pending, err := p.Prepare(c.ctx, id, all(vs))
	c.must(err)
	c.Cleanup(func() { c.undo("abort", pending.Abort) })
	snaps := c.commit(pending)
	if len(snaps) != 2 {
		c.Fatalf("%d snapshots of 2 targets", len(snaps))
	}
	for i, s := range snaps {
		if s.Volume() != vs[i].Volume.ID {
			c.Errorf("snapshot %d is of %s, not of %s", i, s.Volume(), vs[i].Volume.ID)
		}
		if !strings.Contains(s.ID(), id) {
			c.Errorf("the id %q does not tell the set %s", s.ID(), id)
		}
	}
	if snaps[0].ID() == snaps[1].ID() {
		c.Errorf("two snapshots are %q", snaps[0].ID())
	}
}

// The instant lies within Commit, and the parts are where they are said to be.
func checkInstant(c *C) {
	vs := c.host.Volumes(c, 2)
	c.folder(filepath.Join(vs[0].Dir, "folder"))
	pending := c.prepare(c.host.New(c), all(vs))
	if n := pending.Instants(); n < 1 || n > 2 {
		c.Errorf("%d instants for two volumes", n)
	}
	const tick = 10 * time.Millisecond // of the kernel's coarse clock, at HZ=100
	before := time.Now().Add(-tick)
	snaps := c.commit(pending)
	after := time.Now()
	instants := map[time.Time]bool{}
	for i, s := range snaps {
		if len(s.Parts()) == 0 {
			c.Fatal("no parts")
		}
		if p := s.Parts()[0]; p.Path != "." || p.Volume != vs[i].Volume.ID {
			c.Errorf("the first part is %+v", p)
		}
		for _, p := range s.Parts() {
			instants[p.Taken] = true
			if p.Frozen && !pending.Suspends() {
				c.Errorf("%s was frozen, though nothing suspends writes", p.Path)
			}
			if p.Taken.Before(before) || p.Taken.After(after) {
				c.Errorf("%s was taken at %v, not between %v and %v", p.Path, p.Taken, before, after)
			}
			if _, err := os.Stat(s.Root() + "/" + p.Path); err != nil {
				c.Error(err)
			}
		}
	}
	isFolder := func(p snapshot.Part) bool { return p.Path == "folder" && p.Volume != vs[0].Volume.ID }
	if c.host.Folder != nil && !slices.ContainsFunc(snaps[0].Parts(), isFolder) {
		c.Errorf("the volume in the first one is no part: %+v", snaps[0].Parts())
	}
	if len(instants) > pending.Instants() {
		c.Errorf("%d instants, %d were announced", len(instants), pending.Instants())
	}
}

// Nothing can be changed in a snapshot.
func checkReadOnly(c *C) {
	vs := c.host.Volumes(c, 1)
	c.fill(vs[0].Dir)
	s := c.take(c.host.New(c), vs)[0]
	in := func(name string) string { return s.Root() + "/" + name }
	for what, try := range map[string]func() error{
		"create":   func() error { return os.WriteFile(in("new"), nil, 0o600) },
		"write":    func() error { return os.WriteFile(in("small"), []byte("x"), 0) },
		"truncate": func() error { return os.Truncate(in("plain"), 1) },
		"unlink":   func() error { return os.Remove(in("dir/link")) },
		"rename":   func() error { return os.Rename(in("small"), in("other")) },
		"mkdir":    func() error { return os.Mkdir(in("newdir"), 0o700) },
		"chmod":    func() error { return os.Chmod(in("empty"), 0o700) },
		"utimes":   func() error { return os.Chtimes(in("dir"), time.Now(), time.Now()) },
	} {
		if err := try(); err == nil {
			c.Errorf("%s was not refused", what)
		}
	}
}

// Two readings give the same, while the volume changes.
func checkTwoReadings(c *C) {
	vs := c.host.Volumes(c, 1)
	stop := c.startWriters(vs, durable)
	defer stop()
	s := c.take(c.host.New(c), vs)[0]
	first := c.show(s, ".")
	time.Sleep(300 * time.Millisecond) // for the writers to change what they can
	c.same("second reading", c.show(s, "."), first)
	if len(first) < 2 {
		c.Errorf("there was hardly anything to read: %v", first)
	}
}

// Other processes can read Root by its path.
func checkOtherProcess(c *C) {
	vs := c.host.Volumes(c, 1)
	c.folder(filepath.Join(vs[0].Dir, "folder"))
	c.write(filepath.Join(vs[0].Dir, "folder/file"), []byte("content"))
	s := c.take(c.host.New(c), vs)[0]
	out, err := tool.Run(c.ctx, "cat", s.Root()+"/folder/file")
	if err != nil || string(out) != "content" {
		c.Errorf("another process read %q, %v", out, err)
	}
}

// What is mounted on a directory of the volume is not in the snapshot.
func checkMountsBelow(c *C) {
	if !c.isRoot() {
		c.Skip("skipped: only root can mount, and this is not root")
	}
	vs := c.host.Volumes(c, 1)
	point := filepath.Join(vs[0].Dir, "point")
	c.must(os.Mkdir(point, 0o755))
	c.must(syscall.Mount("tmpfs", point, "tmpfs", 0, "size=1m"))
	defer func() { c.must(syscall.Unmount(point, 0)) }()
	c.write(filepath.Join(point, "other"), []byte("of another volume"))
	s := c.take(c.host.New(c), vs)[0]
	if names, err := os.ReadDir(s.Root() + "/point"); err != nil || len(names) > 0 {
		c.Errorf("the mount point holds %v, %v", names, err)
	}
	if gaps := s.Gaps(); len(gaps) > 0 {
		c.Errorf("gaps: %v", gaps)
	}
}
