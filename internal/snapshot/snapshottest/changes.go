package snapshottest

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/sys/writing"
)

// A change is something that happens to a volume after the snapshot and must
// not show in it. make makes what it works on, in a directory of its own; open
// opens or maps that, as a program would that changes it later; do changes it.
type change struct {
	name string
	make func(c *C, dir string) (open func() (do func()))
}

// changeChecks has one check per change, "later-NAME".
func changeChecks() []check {
	var cs []check
	for _, ch := range slices.Concat(changesOfNames(), changesOfContent(), changesOfMappings()) {
		cs = append(cs, check{"later-" + ch.name, func(c *C) { checkChange(c, ch) }})
	}
	return cs
}

// checkChange makes the change four times: by what was opened before Prepare,
// between Prepare and the instant, and after it; and once, before the instant
// and after Prepare, such that it must show.
func checkChange(c *C, ch change) {
	vs := c.host.Volumes(c, 1)
	dir := filepath.Join(vs[0].Dir, "changes")
	c.must(os.Mkdir(dir, 0o755))
	c.write(filepath.Join(dir, "untouched"), pattern(100_000, 3))
	open := map[string]func() func(){}
	for _, when := range []string{"opened-before", "changed-before", "opened-between", "opened-after"} {
		own := filepath.Join(dir, when)
		if when == "opened-between" { // one at least is in the volume itself
			c.must(os.Mkdir(own, 0o755))
		} else {
			c.folder(own)
		}
		open[when] = ch.make(c, own)
	}
	c.syncTree(dir)
	before, shown := open["opened-before"](), open["changed-before"]()
	pending := c.prepare(c.host.New(c), all(vs))
	shown()
	c.syncTree(filepath.Join(dir, "changed-before"))
	between := open["opened-between"]()
	want := c.describe(dir)
	s := c.commit(pending)[0]
	c.same("snapshot", c.show(s, "changes"), want)
	after := open["opened-after"]()
	before()
	between()
	after()
	c.syncTree(dir)
	c.same("snapshot after the change", c.show(s, "changes"), want)
	now := c.describe(dir)
	for _, when := range []string{"opened-before", "opened-between", "opened-after"} {
		if maps.Equal(now.below(when), want.below(when)) {
			c.Errorf("nothing was changed by what was %s", when)
		}
	}
	if err := s.Err(); err != nil {
		c.Errorf("not good: %v", err)
	}
}

// size is that of files that are changed.
const size = 512 << 10

// byName is a change of names, or of a file by its name.
func byName(do func(in func(string) string) error) func(*C, string) func() func() {
	return func(c *C, dir string) func() func() {
		in := func(name string) string { return filepath.Join(dir, name) }
		c.write(in("file"), pattern(size, 5))
		c.write(in("other"), pattern(1000, 6))
		c.must(os.MkdirAll(in("full/sub"), 0o755))
		c.write(in("full/sub/inner"), []byte("inner"))
		c.must(os.Mkdir(in("empty"), 0o755))
		c.xattr(in("file"), "user.kept", "old")
		c.xattr(in("file"), "user.removed", "old")
		return func() func() {
			return func() { c.must(do(in)) }
		}
	}
}

func changesOfNames() []change {
	return []change{
		{"rename-over", byName(func(in func(string) string) error { return os.Rename(in("other"), in("file")) })},
		{"exchange", byName(func(in func(string) string) error {
			return errors.Join(writing.ExchangeNames(in("other"), in("file")), writing.ExchangeNames(in("full"), in("empty")))
		})},
		{"replace", byName(func(in func(string) string) error { // by one that may get its inode
			return errors.Join(os.Remove(in("file")), os.WriteFile(in("file"), pattern(size, 50), 0o600))
		})},
		{"unlink", byName(func(in func(string) string) error { return os.Remove(in("file")) })},
		{"link", byName(func(in func(string) string) error { return os.Link(in("file"), in("link")) })},
		{"make", byName(func(in func(string) string) error {
			return errors.Join(os.Symlink("file", in("symlink")), syscall.Mkfifo(in("full/fifo"), 0o600), os.WriteFile(in("full/new"), nil, 0o600))
		})},
		{"chmod", byName(func(in func(string) string) error {
			return errors.Join(os.Chmod(in("file"), os.ModeSetuid|0o700), os.Chmod(in("full"), 0o700))
		})},
		{"chown", func(c *C, dir string) func() func() {
			if !c.isRoot() {
				c.Skip("skipped: only root can give files away, and this is not root")
			}
			path := filepath.Join(dir, "file")
			c.write(path, pattern(100, 8))
			return func() func() {
				return func() { c.must(os.Lchown(path, 4242, 4343)) }
			}
		}},
		{"utimes", byName(func(in func(string) string) error {
			return errors.Join(os.Chtimes(in("file"), time.Unix(1, 1), time.Unix(1, 1)), os.Chtimes(in("full"), time.Unix(-1, 1), time.Unix(-1, 1)))
		})},
		{"xattr", byName(func(in func(string) string) error {
			return errors.Join(
				syscall.Setxattr(in("file"), "user.kept", []byte("new"), 0), syscall.Setxattr(in("full"), "user.added", []byte("1"), 0),
				syscall.Setxattr(in("other"), "system.posix_acl_access", []byte(accessList()), 0), syscall.Removexattr(in("file"), "user.removed"))
		})},
		{"attributes", onFile(os.O_RDWR, func(_ *C, f *os.File) error {
			return errors.Join(f.Chmod(0o640), syscall.Futimes(int(f.Fd()), []syscall.Timeval{{Sec: 5}, {Sec: 6}}))
		})},
		{"mkdir", byName(func(in func(string) string) error { return os.MkdirAll(in("new/sub"), 0o755) })},
		{"rmdir", byName(func(in func(string) string) error { return os.Remove(in("empty")) })},
		{"rename-directory", byName(func(in func(string) string) error { return os.Rename(in("full"), in("empty/moved")) })},
		{"remove-tree", byName(func(in func(string) string) error { return os.RemoveAll(in("full")) })},
	}
}

// syncTree makes everything in dir durable. All at once, since the file system
// then does it in one go.
func (c *C) syncTree(dir string) {
	c.Helper()
	var all sync.WaitGroup
	errs := make(chan error, 1)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (d.IsDir() || d.Type().IsRegular()) {
			all.Go(func() {
				if err := syncDir(path); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			})
		}
		return err
	})
	all.Wait()
	close(errs)
	c.must(errors.Join(err, <-errs))
}

// syncDir makes a directory or a file durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
