package inode

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
)

func everyFS(t *testing.T, f func(t *testing.T, dir string)) {
	for fsType, size := range map[string]int64{"ext4": 256 * scratch.MiB, "xfs": 400 * scratch.MiB} {
		t.Run(fsType, func(t *testing.T) { f(t, scratch.New(t, fsType, size).Dir) })
	}
}

func openDir(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func handleOf(t *testing.T, dir *os.File, name string) Handle {
	t.Helper()
	h, err := Of(int(dir.Fd()), name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// place opens a name as a place.
func place(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// A handle leads to its inode of whatever type, by whatever name, and says its
// number.
func TestHandle(t *testing.T) {
	everyFS(t, func(t *testing.T, path string) {
		dir := openDir(t, path)
		do(t, os.WriteFile(path+"/file", []byte("content"), 0o600), os.Mkdir(path+"/dir", 0o700), os.Symlink("none", path+"/link"),
			unix.Mknod(path+"/fifo", unix.S_IFIFO|0o600, 0), os.Link(path+"/file", path+"/again"))
		for _, name := range []string{"file", "dir", "link", "fifo", "again", ""} {
			h := handleOf(t, dir, name)
			fd, err := Place(int(dir.Fd()), h)
			if err != nil {
				t.Fatal(name, err)
			}
			defer unix.Close(fd)
			var st unix.Stat_t
			do(t, unix.Lstat(filepath.Join(path, name), &st))
			a, err := Stat(fd)
			if err != nil || a.Number != st.Ino || h.Number() != st.Ino || a.Mode != st.Mode || h.IsZero() {
				t.Errorf("%s: %+v, %v; number by handle %d; lstat says %d", name, a, err, h.Number(), st.Ino)
			}
			if again, err := Of(fd, ""); again != h || err != nil {
				t.Errorf("%s: handle %v by descriptor, %v, %v by name", name, again, err, h)
			}
		}
		if a, b := handleOf(t, dir, "file"), handleOf(t, dir, "again"); a != b {
			t.Errorf("two names of one inode: %v, %v", a, b)
		}
		if _, err := Of(int(dir.Fd()), "none"); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("no such name: %v", err)
		}
	})
}

// An inode number comes back, a handle does not.
func TestReuse(t *testing.T) {
	everyFS(t, func(t *testing.T, path string) {
		dir := openDir(t, path)
		seen := map[uint64]Handle{}
		for range 10_000 {
			do(t, os.WriteFile(path+"/x", nil, 0o600))
			h := handleOf(t, dir, "x")
			do(t, os.Remove(path+"/x"))
			old, reused := seen[h.Number()]
			seen[h.Number()] = h
			if !reused {
				continue
			}
			if old == h {
				t.Fatalf("the handle %v came back", h)
			}
			fd, err := Place(int(dir.Fd()), old)
			if !errors.Is(err, syscall.ESTALE) {
				t.Fatalf("the old handle leads to %d, %v", fd, err)
			}
			return
		}
		t.Fatal("no inode number came back")
	})
}

func TestUnsupported(t *testing.T) {
	d := openDir(t, "/proc/self")
	if h, err := Of(int(d.Fd()), "stat"); !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("of /proc: %v, %v", h, err)
	}
	if h, ok := New(0x4d, make([]byte, 20)); ok {
		t.Errorf("too long: %v", h)
	}
	if h, ok := New(0xff, make([]byte, 8)); ok {
		t.Errorf("invalid: %v", h)
	}
}

func TestTime(t *testing.T) {
	for _, c := range [][2]int64{{0, 0}, {-1, 999_999_999}, {-1_000_000_000, 1}, {math.MinInt32, 0}, {1 << 31, 5}, {15_032_385_535, 999_999_999}, {16_299_260_424, 709_551_615}} {
		at := TimeOf(c[0], c[1])
		if sec, nsec := at.Unix(); sec != c[0] || nsec != c[1] || !at.Is(c[0], c[1]) || !at.Time().Equal(time.Unix(c[0], c[1])) {
			t.Errorf("%v became %d, %d, %v", c, sec, nsec, at.Time())
		}
		if at.Is(c[0], c[1]^1) {
			t.Errorf("%v is another time, too", c)
		}
	}
	if lo, hi := TimeOf(math.MinInt64/2, 0), TimeOf(math.MaxInt64/2, 0); lo != 0 || hi != math.MaxUint64 {
		t.Errorf("out of range: %d, %d", lo, hi)
	}
}

// A clone shows what is under other mounts, those that come later, too; it
// stays when the volume is unmounted, and nothing can be written through it.
func TestClone(t *testing.T) {
	everyFS(t, func(t *testing.T, path string) {
		do(t, os.MkdirAll(path+"/under", 0o700), os.WriteFile(path+"/under/hidden", []byte("x"), 0o600), os.MkdirAll(path+"/later", 0o700),
			os.WriteFile(path+"/later/hidden", []byte("y"), 0o600), unix.Mknod(path+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		do(t, unix.Mount("", path, "", unix.MS_SHARED, "")) // whatever the host does
		do(t, unix.Mount("tmpfs", path+"/under", "tmpfs", 0, "size=64k"))
		t.Cleanup(func() { unix.Unmount(path+"/under", unix.MNT_DETACH) })
		before, err := os.ReadFile("/proc/self/mountinfo")
		do(t, err)
		c, err := Clone(openDir(t, path))
		do(t, err)
		defer c.Close()
		if after, _ := os.ReadFile("/proc/self/mountinfo"); string(after) != string(before) {
			t.Errorf("the host's mounts changed:\n%s", after)
		}
		do(t, unix.Mount("tmpfs", path+"/later", "tmpfs", 0, "size=64k"))
		t.Cleanup(func() { unix.Unmount(path+"/later", unix.MNT_DETACH) })
		for name, want := range map[string]string{"under/hidden": "x", "later/hidden": "y"} {
			if b, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/%s", c.Fd(), name)); string(b) != want || err != nil {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		}
		h := handleOf(t, c, "under/hidden")
		if fd, err := Open(int(c.Fd()), h, unix.O_RDONLY); err != nil {
			t.Error(err)
		} else {
			unix.Close(fd)
		}
		for flags, want := range map[int]error{unix.O_RDWR: syscall.EROFS, unix.O_RDWR | unix.O_CREAT: syscall.EROFS} {
			if _, err := unix.Openat(int(c.Fd()), "under/new", flags, 0o600); flags&unix.O_CREAT != 0 && !errors.Is(err, want) {
				t.Errorf("create: %v", err)
			}
			if _, err := unix.Openat(int(c.Fd()), "under/hidden", flags&^unix.O_CREAT, 0); !errors.Is(err, want) {
				t.Errorf("write: %v", err)
			}
		}
		if _, err := unix.Openat(int(c.Fd()), "null", unix.O_RDONLY, 0); !errors.Is(err, syscall.EACCES) {
			t.Errorf("open a device: %v", err)
		}
	})
}

// A kept inode can be read by its handle when its last name is gone, and is
// gone when the Keeper is closed.
func TestKeeper(t *testing.T) {
	everyFS(t, func(t *testing.T, path string) {
		dir := openDir(t, path)
		k, err := NewKeeper(0)
		do(t, err)
		defer k.Close()
		const n = 2*batchSize + 7 // some are in no message yet
		var handles []Handle
		for i := range n {
			name := fmt.Sprintf("%s/f%d", path, i)
			do(t, os.WriteFile(name, []byte(name), 0o600), k.Keep(place(t, name)))
			handles = append(handles, handleOf(t, dir, fmt.Sprintf("f%d", i)))
		}
		check := func(when string) {
			t.Helper()
			for i := range n {
				fd, err := Open(int(dir.Fd()), handles[i], unix.O_RDONLY)
				if err != nil {
					t.Fatalf("%s: f%d: %v", when, i, err)
				}
				b := make([]byte, 100)
				m, _ := unix.Read(fd, b)
				unix.Close(fd)
				if want := fmt.Sprintf("%s/f%d", path, i); string(b[:m]) != want {
					t.Fatalf("%s: f%d holds %q", when, i, b[:m])
				}
			}
		}
		for i := range n {
			do(t, os.Remove(fmt.Sprintf("%s/f%d", path, i)))
		}
		check("deleted")
		do(t, k.Flush())
		do(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0))
		check("flushed")
		if k.Count() != n {
			t.Errorf("Count() = %d, want %d", k.Count(), n)
		}
		do(t, k.Close(), k.Close())
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			fd, err := Place(int(dir.Fd()), handles[0])
			if errors.Is(err, syscall.ESTALE) {
				break
			}
			unix.Close(fd)
			if time.Now().After(end) {
				t.Fatalf("still there after Close: %v", err)
			}
		}
		if err := k.Keep(place(t, path)); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Keep after Close: %v", err)
		}
	})
}

// A full buffer is no end.
func TestKeeperSmallBuffer(t *testing.T) {
	k, err := NewKeeper(0)
	do(t, err)
	defer k.Close()
	do(t, unix.SetsockoptInt(k.sockets[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 4096))
	for range 20 * batchSize {
		do(t, k.Keep(place(t, ".")))
	}
	if len(k.sockets) != 4 || k.Count() != 20*batchSize {
		t.Errorf("%d sockets, %d kept", len(k.sockets), k.Count())
	}
}

// 100,000 inodes are kept by a process that may have 256 descriptors. Lowering
// a limit is for a whole process, so another one does it.
func TestKeeperManyFiles(t *testing.T) {
	dir, child := os.LookupEnv("STILLPOINT_KEEP_IN")
	if !child {
		everyFS(t, func(t *testing.T, path string) {
			c := testCommand(t, "TestKeeperManyFiles", "STILLPOINT_KEEP_IN="+path)
			out, err := c.CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				t.Fatal(err)
			}
		})
		return
	}
	const n, links = 2000, 49 // few inodes with many names: descriptors are what is counted here
	for i := range n {
		do(t, os.WriteFile(fmt.Sprintf("%s/%d", dir, i), nil, 0o600))
	}
	do(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: 256}))
	k, err := NewKeeper(0)
	do(t, err)
	before := slab(t)
	start := time.Now()
	for range links + 1 {
		for i := range n {
			do(t, k.Keep(place(t, fmt.Sprintf("%s/%d", dir, i))))
		}
	}
	do(t, k.Flush())
	took := time.Since(start)
	grown := slab(t) - before
	start = time.Now()
	count := k.Count()
	do(t, k.Close())
	t.Logf("%d descriptors kept in %v (%.1f µs each), %d bytes of slab each, closed in %v", count, took,
		float64(took.Microseconds())/float64(count), grown/int64(count), time.Since(start))
	if count != n*(links+1) {
		t.Errorf("Count() = %d", count)
	}
}

// slab is the kernel's memory for objects, in bytes.
func slab(t *testing.T) (bytes int64) {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	do(t, err)
	_, rest, _ := strings.Cut(string(b), "\nSlab:")
	if _, err := fmt.Sscan(rest, &bytes); err != nil {
		t.Fatal(err)
	}
	return bytes << 10
}

// Whoever opens an inode whose number is being used again at that moment is told
// that it is gone.
func TestOpenWhileCreated(t *testing.T) {
	everyFS(t, func(t *testing.T, path string) {
		dir := openDir(t, path)
		do(t, os.Symlink("x", path+"/x"))
		h := handleOf(t, dir, "x")
		do(t, os.Remove(path+"/x"))
		quit, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			for {
				select {
				case <-quit:
					return
				default:
					_ = os.Symlink("x", path+"/x")
					_ = os.Remove(path + "/x")
				}
			}
		}()
		count := 0
		for end := time.Now().Add(time.Second); time.Now().Before(end); count++ {
			if fd, err := Place(int(dir.Fd()), h); !errors.Is(err, syscall.ESTALE) {
				t.Errorf("after %d: %d, %v", count, fd, err)
				break
			}
		}
		close(quit)
		<-ended
		t.Logf("%d times", count)
	})
}
