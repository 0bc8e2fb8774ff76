package view

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot/cow/index"
)

// The errno of a Source reaches the reader, where it means the same to both.
func TestErrors(t *testing.T) {
	scratch.NeedRoot(t)
	for i, c := range []struct{ err, want error }{
		{errors.New("torn"), unix.EIO},
		{fmt.Errorf("gone: %w", unix.ESTALE), unix.ESTALE},
		{errors.Join(unix.EBADMSG, errors.New("torn")), unix.EBADMSG},
		{&os.PathError{Op: "pread", Err: unix.EUCLEAN}, unix.EUCLEAN},
		{unix.ENOSYS, unix.EIO}, // else the kernel would never read again
		{unix.EINTR, unix.EIO},
		{unix.EAGAIN, unix.EIO},
		{io.EOF, unix.EIO}, // shorter than the index says
		{io.ErrUnexpectedEOF, unix.EIO},
	} {
		m := newMemory()
		m.add("b", 3, 0o644, []byte("content of b"))
		m.hook = func(number uint64, _ int64) error {
			if number == 1 {
				return c.err
			}
			return nil
		}
		_, p := show(t, m)
		if b, err := os.ReadFile(p + "/a"); !errors.Is(err, c.want) {
			t.Errorf("%d: %v became %q, %v", i, c.err, b, err)
		}
		if b, err := os.ReadFile(p + "/b"); err != nil || string(b) != "content of b" {
			t.Errorf("%d: the other file: %q, %v", i, b, err)
		}
	}
}

// A part of a file that cannot be read does not spoil the rest, and the content
// never ends early.
func TestErrorInTheMiddle(t *testing.T) {
	scratch.NeedRoot(t)
	m := newMemory()
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	m.add("b", 3, 0o644, content)
	m.hook = func(_ uint64, offset int64) error {
		if offset < 3<<20 && offset+readMost > 2<<20 {
			return unix.EBADMSG
		}
		return nil
	}
	_, p := show(t, m)
	f, err := os.Open(p + "/b")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, 1000)
	for _, at := range []int64{0, 4<<20 - 1000} {
		if _, err := f.ReadAt(got, at); err != nil || !bytes.Equal(got, content[at:at+1000]) {
			t.Errorf("at %d: %v", at, err)
		}
	}
	if _, err := f.ReadAt(got, 2<<20); !errors.Is(err, unix.EBADMSG) {
		t.Errorf("in the middle: %v", err)
	}
	if all, err := io.ReadAll(f); !errors.Is(err, unix.EBADMSG) || !bytes.HasPrefix(content, all) {
		t.Errorf("all: %d bytes, %v", len(all), err)
	}
}

// The root has any number, and a file may have the one that FUSE gives to
// roots.
func TestNumbers(t *testing.T) {
	scratch.NeedRoot(t)
	_, p := show(t, newMemory())
	for name, want := range map[string]uint64{"/.": 2, "/a": 1} {
		var st unix.Stat_t
		if err := unix.Lstat(p+name, &st); err != nil || st.Ino != want {
			t.Errorf("%s has number %d, %v", name, st.Ino, err)
		}
	}
	if b, err := os.ReadFile(p + "/a"); err != nil || string(b) != "content of a" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestNothingCanBeChanged(t *testing.T) {
	scratch.NeedRoot(t)
	_, p := show(t, newMemory())
	_, err := os.OpenFile(p+"/a", os.O_WRONLY, 0)
	for what, err := range map[string]error{
		"open": err, "create": os.WriteFile(p+"/new", nil, 0o600), "remove": os.Remove(p + "/a"), "mkdir": os.Mkdir(p+"/d", 0o700),
		"chmod": os.Chmod(p+"/a", 0), "chown": os.Chown(p+"/a", 1, 1), "rename": os.Rename(p+"/a", p+"/b"), "link": os.Link(p+"/a", p+"/b"),
		"truncate": os.Truncate(p+"/a", 0), "times": os.Chtimes(p+"/a", time.Now(), time.Now()),
		"xattr": unix.Setxattr(p+"/a", "user.x", nil, 0), "remove xattr": unix.Removexattr(p+"/a", "user.x"),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := os.ReadFile(p + "/nothing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that does not exist: %v", err)
	}
}

// Users get what modes and ACLs let them have, as they do live.
func TestPermissions(t *testing.T) {
	scratch.NeedRoot(t)
	m := newMemory()
	m.add("b secret", 3, 0o600, []byte("x"))
	acl := func(perm byte) string { // user::rw- user:4711:PERM group::r-- mask::rwx other::r--; posix_acl_xattr.h
		entry := func(tag, perm byte, id string) string { return string([]byte{tag, 0, perm, 0}) + id }
		return "\x02\x00\x00\x00" + entry(1, 6, "\xff\xff\xff\xff") + entry(2, perm, "\x67\x12\x00\x00") +
			entry(4, 4, "\xff\xff\xff\xff") + entry(0x10, 7, "\xff\xff\xff\xff") + entry(0x20, 4, "\xff\xff\xff\xff")
	}
	m.add("c granted", 4, 0o670, []byte("x")).XAttrs = []index.XAttr{{Name: "system.posix_acl_access", Value: acl(4)}}
	m.add("d denied", 5, 0o674, []byte("x")).XAttrs = []index.XAttr{{Name: "system.posix_acl_access", Value: acl(0)}}
	v, _ := show(t, m)
	for name, allowed := range map[string]bool{"a": true, "b secret": false, "c granted": true, "d denied": false} {
		c := other("content", "/proc/self/fd/3/"+name)
		c.Args[0], c.Path = "view.test", "/proc/self/exe" // the test binary lies where only root gets
		c.ExtraFiles = []*os.File{v.Root()}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4711, Gid: 4711}}
		out, err := c.CombinedOutput()
		if (err == nil) != allowed || !allowed && !strings.Contains(string(out), "permission denied") {
			t.Errorf("%s: %v %s", name, err, out)
		}
	}
}

// Many readers at once, at random places, get the right bytes.
func TestParallelReaders(t *testing.T) {
	scratch.NeedRoot(t)
	m := newMemory()
	content := make([]byte, 32<<20+1234)
	for i := range content {
		content[i] = byte(i>>16) ^ byte(i>>8) ^ byte(i)
	}
	m.add("b", 3, 0o644, content)
	_, p := show(t, m)
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Go(func() {
			f, err := os.Open(p + "/b")
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			random := rand.New(rand.NewPCG(1, uint64(i)))
			buf := make([]byte, 1<<20)
			for range 100 {
				at := random.Int64N(int64(len(content)))
				n, err := f.ReadAt(buf[:random.IntN(len(buf))], at)
				if err != nil && err != io.EOF || !bytes.Equal(buf[:n], content[at:at+int64(n)]) {
					t.Errorf("%d bytes at %d differ, %v", n, at, err)
					return
				}
			}
		})
	}
	readers.Wait()
}

// A directory may have a million names (with STILLPOINT_MEASURE, else somewhat
// less): listing it is linear, a place in it stays valid, and so does every
// name.
func TestMillionNames(t *testing.T) {
	scratch.NeedRoot(t)
	most := 200_000
	if os.Getenv("STILLPOINT_MEASURE") != "" {
		most = 1_000_000
	}
	list := func(n int) time.Duration {
		m := newMemory()
		m.inodes[2].Children = m.inodes[2].Children[:0]
		for i := range n {
			m.add(fmt.Sprintf("%08d", i), uint64(1000+i), 0o644, nil)
		}
		_, p := show(t, m)
		fd, err := unix.Open(p+"/.", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		begin := time.Now()
		seen := 0
		buf := make([]byte, 256<<10)
		var places []int64
		var firsts []string
		for {
			place, err := unix.Seek(fd, 0, 1)
			if err != nil {
				t.Fatal(err)
			}
			got, err := unix.Getdents(fd, buf)
			if err != nil {
				t.Fatal(err)
			}
			if got == 0 {
				break
			}
			_, count, names := unix.ParseDirent(buf[:got], -1, nil)
			for i, name := range names {
				if name != fmt.Sprintf("%08d", seen+i) {
					t.Fatalf("name %d is %q", seen+i, name)
				}
			}
			seen += count
			places, firsts = append(places, place), append(firsts, names[0])
		}
		spent := time.Since(begin)
		if seen != n {
			t.Fatalf("%d of %d names", seen, n)
		}
		for range 20 {
			i := rand.IntN(len(places))
			if _, err := unix.Seek(fd, places[i], 0); err != nil {
				t.Fatal(err)
			}
			got, err := unix.Getdents(fd, buf)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, names := unix.ParseDirent(buf[:got], -1, nil); names[0] != firsts[i] {
				t.Fatalf("at place %d is %q, was %q", places[i], names[0], firsts[i])
			}
		}
		var st unix.Stat_t
		if err := unix.Fstatat(fd, fmt.Sprintf("%08d", n-1), &st, 0); err != nil || st.Ino != uint64(1000+n-1) {
			t.Errorf("the last name: %d, %v", st.Ino, err)
		}
		return spent
	}
	few, many := list(most/10), list(most)
	t.Logf("%d names in %v, %d in %v", most/10, few, most, many)
	if many > 60*few { // quadratic would be 100 times
		t.Errorf("%d names took %v, %d took %v", most/10, few, most, many)
	}
}
