package cow

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/direct"
	"stillpoint/internal/tree"
)

// reader reads a snapshot in this process.
func (r *rig) reader(s snapshot.Readable) snapshot.Reader {
	r.Helper()
	d, err := s.Reader(r.Context())
	r.must(err)
	r.Cleanup(func() { r.must(d.Close()) })
	return d
}

// lent reads it as another process does.
func (r *rig) lent(s *target) snapshot.Reader {
	r.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix"})
	r.must(err)
	r.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go func() { _ = s.Lend(c) }()
		}
	}()
	d, err := direct.Attach(func() (*net.UnixConn, error) {
		return net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	})
	r.must(err)
	r.Cleanup(func() { r.must(d.Close()) })
	return d
}

// variety makes files with everything that is stored of them.
func (r *rig) variety() {
	r.Helper()
	r.must(errors.Join(os.MkdirAll(r.path("dir/below"), 0o750), os.Mkdir(r.path("large"), 0o755), os.Mkdir(r.path("empty"), 0o700)))
	for i := range 700 { // more than are listed with all that they are
		name := r.path(fmt.Sprint("large/", i*7919%1000))
		if i%50 == 0 {
			r.must(os.Mkdir(name, 0o755))
		} else {
			r.must(os.WriteFile(name, []byte(name), 0o640))
		}
	}
	for name, content := range map[string][]byte{
		"plain": bytes.Repeat([]byte("plain"), 50_000), "none": nil, "dir/below/odd \xff\n": []byte("odd"),
		"changes": bytes.Repeat([]byte("changes!"), 100_000), "shrinks": bytes.Repeat([]byte("shrinks!"), 10_000), "goes": []byte("goes"),
	} {
		r.must(os.WriteFile(r.path(name), content, 0o644))
	}
	r.must(os.Link(r.path("plain"), r.path("dir/again")))
	r.must(os.Symlink("no/where", r.path("dir/link")))
	r.must(unix.Mkfifo(r.path("fifo"), 0o600))
	r.must(unix.Mknod(r.path("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	r.must(unix.Setxattr(r.path("plain"), "user.b", []byte("2"), 0))
	r.must(unix.Setxattr(r.path("plain"), "user.a", nil, 0))
	r.must(unix.Setxattr(r.path("dir"), "trusted.d", []byte{0, 255}, 0))
	f, err := os.Create(r.path("holes"))
	r.must(err)
	_, err = f.WriteAt(bytes.Repeat([]byte("data"), 1<<18), 3<<20)
	r.must(errors.Join(err, f.Truncate(9<<20), f.Sync(), f.Close()))
	for name, flags := range map[string]string{"plain": "+d", "none": "+S", "dir": "+A"} {
		if out, err := exec.Command("chattr", flags, r.path(name)).CombinedOutput(); err != nil {
			r.Fatalf("chattr: %v: %s", err, out)
		}
	}
	r.must(os.Chtimes(r.path("holes"), time.Unix(-5, 7), time.Unix(-5, 7)))
}

// alter changes all of that.
func (r *rig) alter() {
	r.Helper()
	f, err := os.OpenFile(r.path("changes"), os.O_RDWR, 0)
	r.must(err)
	_, err = f.WriteAt(bytes.Repeat([]byte("x"), 10_000), 123_456)
	r.must(errors.Join(err, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 65536), f.Close()))
	f, err = os.OpenFile(r.path("holes"), os.O_RDWR, 0)
	r.must(err)
	_, err = f.WriteAt([]byte("filled"), 1<<20)
	r.must(errors.Join(err, f.Close()))
	r.must(errors.Join(os.Truncate(r.path("shrinks"), 5), os.Remove(r.path("goes")), os.RemoveAll(r.path("large")),
		os.Rename(r.path("dir"), r.path("moved")), os.Chmod(r.path("plain"), 0o600), os.WriteFile(r.path("new"), []byte("new"), 0o600)))
	for range 5 {
		r.must(os.WriteFile(r.path("replacement"), []byte("another"), 0o644))
		r.must(os.Rename(r.path("replacement"), r.path("none")))
	}
}

// stored is all that a backup would store of a tree, by path.
func (r *rig) stored(src tree.Source) map[string]string {
	r.Helper()
	src.Path = "/live"
	n, err := tree.Open(src)
	r.must(err)
	defer n.Close()
	all := map[string]string{}
	r.storedBelow(n.Dir, all)
	n.Entry.Name = ""
	all["."] = fmt.Sprintf("%+v", n.Entry)
	return all
}

func (r *rig) storedBelow(d *tree.Dir, all map[string]string) {
	r.Helper()
	names, err := d.Names()
	r.must(err)
	all[d.Path()+" in order"] = fmt.Sprint(names)
	for _, n := range names {
		e, err := d.Stat(n.Name)
		r.must(err)
		r.must(d.Complete(&e))
		text := ""
		if e.Type == tree.File {
			c, err := d.OpenFile(e)
			r.must(err)
			flags, err := c.Flags()
			r.must(err)
			e.Flags |= flags
			e.Holes, err = c.Holes()
			r.must(err)
			content := make([]byte, e.Size)
			if n, err := c.ReadAt(content, 0); n < len(content) || err != nil && err != io.EOF {
				r.Fatalf("%s: %d bytes, %v", e.Name, n, err)
			}
			after, err := c.Stat()
			r.must(errors.Join(err, c.Close()))
			if tree.Changed(e, after) {
				r.Errorf("%s is other after it was read", e.Name)
			}
			text = fmt.Sprintf(" %x", content)
		}
		all[d.Path()+"/"+n.Name] = fmt.Sprintf("%+v", e) + text
		if e.Type == tree.Directory {
			sub, err := d.OpenDir(n.Name)
			r.must(err)
			r.storedBelow(sub, all)
			r.must(sub.Close())
		}
	}
}

func (r *rig) directly(d snapshot.Reader) tree.Source {
	r.Helper()
	at, err := tree.DirectBeneath(d, ".", "/live")
	r.must(err)
	return tree.Source{Direct: at}
}

// described is the manifest of what a Reader shows, as rig.manifest makes it.
func (r *rig) described(d snapshot.Reader) map[string]string {
	r.Helper()
	m := map[string]string{}
	top, err := d.Top()
	r.must(err)
	r.describe(d, m, ".", top)
	return m
}

func (r *rig) describe(d snapshot.Reader, m map[string]string, name string, i snapshot.Item) {
	r.Helper()
	f := i.Info
	line := fmt.Sprintf("ino %d mode %o nlink %d uid %d size %d mtime %d.%09d ctime %d.%09d", f.Inode, uint32(f.Kind)|f.Mode, f.Links, f.UID, f.Size,
		f.Modified.Unix(), f.Modified.Nanosecond(), f.Changed.Unix(), f.Changed.Nanosecond())
	if f.Kind == unix.S_IFREG {
		c, err := d.Open(i)
		r.must(err)
		content, err := io.ReadAll(io.NewSectionReader(c, 0, f.Size))
		if err = errors.Join(err, c.Verify(), c.Close()); err != nil {
			r.Fatalf("%s: %v", name, err)
		}
		line += contentLine(content)
		n := slices.IndexFunc(i.XAttrs, func(x snapshot.XAttr) bool { return x.Name == "user.stress" })
		if n >= 0 {
			line += fmt.Sprintf(" xattr %x", i.XAttrs[n].Value)
		}
	}
	m[name] = line
	if f.Kind != unix.S_IFDIR {
		return
	}
	l, err := d.List(f.Inode)
	r.must(err)
	for _, i := range l.Items {
		r.describe(d, m, filepath.Join(name, i.Name), i)
	}
}

// contentLine is what a manifest says of content.
func contentLine(content []byte) string {
	line := fmt.Sprintf(" read %d, by page", len(content))
	for page := range slices.Chunk(content, 4096) {
		line += fmt.Sprintf(" %08x", crc32.ChecksumIEEE(page))
	}
	return line
}
