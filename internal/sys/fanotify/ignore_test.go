package fanotify

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// privateMount is the volume's root through a mount that nobody else has.
func privateMount(t *testing.T, dir string) *os.File {
	t.Helper()
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	must(t, err)
	t.Cleanup(func() { unix.Close(tree) })
	fd, err := unix.Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	f := os.NewFile(uintptr(fd), "private")
	t.Cleanup(func() { f.Close() })
	return f
}

func TestSilence(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		must(t, os.WriteFile(dir+"/file", make([]byte, 8192), 0o600))
		fs, private := openDir(t, dir), privateMount(t, dir)
		p := newGroup(t)
		l := listen(t, p, 1)
		must(t, p.Watch(private)) // as good as any other descriptor of the volume
		must(t, p.Silence(private))
		use := func() {
			fd, err := unix.Openat(int(private.Fd()), "file", unix.O_RDWR, 0)
			must(t, err)
			defer unix.Close(fd)
			b := make([]byte, 10)
			_, err = unix.Pread(fd, b, 0)
			must(t, err)
			_, err = unix.Pwrite(fd, b, 0)
			must(t, err)
			m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
			must(t, err)
			must(t, unix.Munmap(m))
			must(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096))
		}
		use()
		must(t, p.Arm(fs))
		use()
		if got := l.take(); got != "" {
			t.Errorf("through the silent mount: %q", got)
		}
		_, err := os.ReadFile(dir + "/file")
		must(t, err)
		if got := l.take(); !strings.HasPrefix(got, "open 0+") {
			t.Errorf("through the other mount: %q", got)
		}
		// Truncation asks the file system, and the mount only if it goes by a path.
		fd, err := unix.Openat(int(private.Fd()), "file", unix.O_RDWR, 0)
		must(t, err)
		defer unix.Close(fd)
		must(t, unix.Ftruncate(fd, 4096))
		if got := l.take(); got != "" {
			t.Errorf("truncate through the silent mount: %q", got)
		}
		link := fmt.Sprintf("/proc/self/fd/%d", fd)
		g, err := os.OpenFile(link, os.O_WRONLY|os.O_TRUNC, 0)
		must(t, err)
		g.Close()
		if got := l.take(); got != "" {
			t.Errorf("opened anew through the silent mount: %q", got)
		}
	})
}

func TestIgnore(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		fs := openDir(t, dir)
		p := newGroup(t)
		l := listen(t, p, 1)
		must(t, p.Watch(fs))
		file, other := create(t, dir+"/file", 8192), create(t, dir+"/other", 8192)
		must(t, p.Arm(fs))
		use := func(want string) {
			t.Helper()
			for _, f := range []*os.File{file, other} {
				_, err := f.WriteAt([]byte("x"), 0)
				must(t, err)
			}
			must(t, file.Truncate(8192))
			g, err := os.OpenFile(file.Name(), os.O_RDWR, 0)
			must(t, err)
			g.Close()
			if got := l.take(); got != want {
				t.Errorf("events %q, want %q", got, want)
			}
		}
		const all, one = "0+4096 0+4096 8192+0 open", "0+4096"
		use(all)
		must(t, p.Ignore(int(file.Fd())))
		use(one)
		use(one)
		must(t, p.Heed(int(file.Fd())))
		must(t, p.Heed(int(file.Fd()))) // nothing to do
		use(all)
		must(t, p.Ignore(int(file.Fd())))
		must(t, p.HeedAll())
		use(all)
	})
}

// A file that was ignored through the descriptor of an event, and whose inode
// the kernel forgets, has events again or not, but no failure.
func TestIgnoreEventFD(t *testing.T) {
	onVolumes(t, func(t *testing.T, dir string) {
		must(t, os.WriteFile(dir+"/file", make([]byte, 8192), 0o600))
		fs := openDir(t, dir)
		p := newGroup(t)
		l := listen(t, p, 1)
		l.mu.Lock()
		l.what = func(e Event) {
			if err := p.Ignore(int(e.FD)); err != nil {
				t.Error(err)
			}
		}
		l.mu.Unlock()
		must(t, p.Watch(fs))
		must(t, p.Arm(fs))
		for range 3 {
			_, err := os.ReadFile(dir + "/file")
			must(t, err)
		}
		if got := l.take(); got != "open" {
			t.Errorf("events %q", got)
		}
		must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0))
		_, err := os.ReadFile(dir + "/file")
		must(t, err)
		t.Logf("after drop_caches: events %q", l.take())
	})
}
