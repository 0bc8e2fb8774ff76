package view

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"stillpoint/internal/snapshot/cow/index"
	"stillpoint/internal/sys/inode"
)

// A folder is a Source over a directory that nobody changes: the inodes in
// memory, the content from its files.
type folder struct {
	dir    string
	root   uint64
	inodes map[uint64]*index.Inode
	paths  map[uint64]string
}

func newFolder(tb testing.TB, dir string) *folder {
	tb.Helper()
	f := &folder{dir: dir, inodes: map[uint64]*index.Inode{}, paths: map[uint64]string{}}
	f.root = f.add(tb, dir)
	return f
}

func (f *folder) add(tb testing.TB, path string) uint64 {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		tb.Fatal(path, err)
	}
	if f.inodes[st.Ino] != nil {
		return st.Ino
	}
	at := func(t unix.StatxTimestamp) inode.Time { return inode.TimeOf(t.Sec, int64(t.Nsec)) }
	in := &index.Inode{
		Number: st.Ino, Mode: uint32(st.Mode), UID: st.Uid, GID: st.Gid, Nlink: st.Nlink,
		Rdev: uint32(unix.Mkdev(st.Rdev_major, st.Rdev_minor)), Size: int64(st.Size), Blocks: int64(st.Blocks),
		Atime: at(st.Atime), Mtime: at(st.Mtime), Ctime: at(st.Ctime), Btime: at(st.Btime),
	}
	f.inodes[in.Number], f.paths[in.Number] = in, path
	list := make([]byte, 65536)
	if n, err := unix.Llistxattr(path, list); err == nil {
		for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
			value := make([]byte, 65536)
			if n, err := unix.Lgetxattr(path, name, value); err == nil {
				in.XAttrs = append(in.XAttrs, index.XAttr{Name: name, Value: string(value[:n])})
			}
		}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		in.Target, _ = os.Readlink(path)
	case unix.S_IFREG, unix.S_IFDIR:
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOATIME, 0)
		if err != nil {
			tb.Fatal(path, err)
		}
		in.Flags, _ = unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
		unix.Close(fd)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		d, err := os.Open(path)
		if err != nil {
			tb.Fatal(err)
		}
		names, err := d.Readdirnames(-1)
		d.Close()
		if err != nil {
			tb.Fatal(err)
		}
		slices.Sort(names)
		for _, name := range names {
			in.Children = append(in.Children, index.Child{Name: name, Number: f.add(tb, path+"/"+name)})
		}
	}
	return in.Number
}

func (f *folder) Root() uint64                     { return f.root }
func (f *folder) Inode(number uint64) *index.Inode { return f.inodes[number] }

func (f *folder) ReadAt(number uint64, p []byte, offset int64) (int, error) {
	fd, err := unix.Open(f.paths[number], unix.O_RDONLY|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	n, err := unix.Pread(fd, p, offset)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return max(n, 0), err
}

func (f *folder) Seek(number uint64, offset int64, hole bool) (int64, error) {
	fd, err := unix.Open(f.paths[number], unix.O_RDONLY|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	whence := unix.SEEK_DATA
	if hole {
		whence = unix.SEEK_HOLE
	}
	return unix.Seek(fd, offset, whence)
}

func (f *folder) Statfs() Statfs {
	var st unix.Statfs_t
	if err := unix.Statfs(f.dir, &st); err != nil {
		return Statfs{}
	}
	return Statfs{BlockSize: uint32(st.Bsize), Blocks: st.Blocks, Free: st.Bfree, Available: st.Bavail,
		Files: st.Files, FreeFiles: st.Ffree, NameMax: uint32(st.Namelen), IOSize: uint32(st.Bsize)}
}

// show mounts a view of a source and returns its path.
func show(tb testing.TB, s Source) (*View, string) {
	tb.Helper()
	v, err := Mount(s, Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := v.Close(); err != nil {
			tb.Error(err)
		}
	})
	return v, path(v)
}

func path(v *View) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), v.Root().Fd()) }

// A memory is a Source of files that exist nowhere else.
type memory struct {
	root    uint64
	inodes  map[uint64]*index.Inode
	content map[uint64][]byte
	hook    func(number uint64, offset int64) error // is asked before content is read
	calls   atomic.Int64                            // to read content
}

// newMemory is a root, numbered 2, with a file "a" of number 1.
func newMemory() *memory {
	m := &memory{root: 2, inodes: map[uint64]*index.Inode{}, content: map[uint64][]byte{}}
	m.inodes[2] = &index.Inode{Number: 2, Mode: unix.S_IFDIR | 0o755, Nlink: 2}
	m.add("a", 1, 0o644, []byte("content of a"))
	return m
}

// add adds a file to the root; names must come in their order.
func (m *memory) add(name string, number uint64, mode uint32, content []byte) *index.Inode {
	in := &index.Inode{Number: number, Mode: unix.S_IFREG | mode, Nlink: 1, Size: int64(len(content)), Blocks: 8}
	m.inodes[number], m.content[number] = in, content
	m.inodes[2].Children = append(m.inodes[2].Children, index.Child{Name: name, Number: number})
	return in
}

func (m *memory) Root() uint64                     { return m.root }
func (m *memory) Inode(number uint64) *index.Inode { return m.inodes[number] }
func (m *memory) Statfs() Statfs {
	return Statfs{BlockSize: 4096, Blocks: 100, NameMax: 255, IOSize: 4096}
}

func (m *memory) ReadAt(number uint64, p []byte, offset int64) (int, error) {
	m.calls.Add(1)
	if m.hook != nil {
		if err := m.hook(number, offset); err != nil {
			return 0, err
		}
	}
	return bytes.NewReader(m.content[number]).ReadAt(p, offset)
}

func (m *memory) Seek(number uint64, offset int64, hole bool) (int64, error) {
	if hole {
		return int64(len(m.content[number])), nil
	}
	return offset, nil
}
