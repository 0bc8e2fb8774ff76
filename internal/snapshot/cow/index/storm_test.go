package index

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A storm changes a volume in every way that a program can, until it is
// stopped. Most attempts fail, as names are few. It is a process of its own: a
// store to a mapping that waits for the thaw holds a lock that soon stops all
// of its process.
type storm struct {
	pid  int
	stop func()
}

// stormRoots are the directories that it works in; of these stormPaths are
// selected.
var (
	stormRoots = []string{"sel", "out", "deep/lead/sel2", "deep/other", "."}
	stormPaths = []string{"sel", "deep/lead/sel2", "single"}
)

func startStorm(t testing.TB, v *volume, seed uint64, threads int) *storm {
	t.Helper()
	for _, d := range stormRoots {
		_ = os.MkdirAll(v.path(d), 0o755) // an earlier storm may have put something else there
	}
	c := exec.Command(os.Args[0], "-test.run=^TestStormProcess$")
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", stormEnv, v.dir, seed, threads))
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	s := &storm{pid: c.Process.Pid}
	s.stop = sync.OnceFunc(func() {
		in.Close()
		if lines.Scan() {
			t.Logf("the storm made %s changes", lines.Text())
		}
		for lines.Scan() {
		}
		if err := c.Wait(); err != nil {
			t.Errorf("storm: %v", err)
		}
	})
	t.Cleanup(s.stop)
	if !lines.Scan() {
		t.Fatal("the storm did not begin")
	}
	return s
}

const stormEnv = "STILLPOINT_STORM"

// TestStormProcess is the process of a storm, and no test. It ends with its
// standard input.
func TestStormProcess(t *testing.T) {
	var w stormer
	var seed uint64
	var threads int
	if n, _ := fmt.Sscan(os.Getenv(stormEnv), &w.dir, &seed, &threads); n != 3 {
		t.Skip("skipped: this is what storms run as")
	}
	unix.Umask(0)
	fmt.Println("begin")
	var ended sync.WaitGroup
	var quit atomic.Bool
	var done atomic.Int64
	for i := range threads {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		ended.Go(func() {
			for !quit.Load() {
				if w.act(r) == nil {
					done.Add(1)
				}
			}
		})
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	quit.Store(true)
	ended.Wait()
	fmt.Println(done.Load())
}

// A stormer does the work of a storm.
type stormer struct{ dir string }

// place is a random path.
func (s *stormer) place(r *rand.Rand) string {
	p := filepath.Join(s.dir, stormRoots[r.IntN(len(stormRoots))])
	for range r.IntN(3) {
		p = filepath.Join(p, fmt.Sprintf("d%d", r.IntN(3)))
	}
	switch r.IntN(12) {
	case 0, 1, 2:
		return filepath.Join(p, fmt.Sprintf("d%d", r.IntN(3)))
	case 3:
		return filepath.Join(s.dir, "single")
	case 4:
		return p
	}
	return filepath.Join(p, fmt.Sprintf("n%d", r.IntN(8)))
}

// act tries one thing.
func (s *stormer) act(r *rand.Rand) error {
	p, q := s.place(r), s.place(r)
	switch r.IntN(27) {
	case 0, 1, 2:
		return s.write(r, p, unix.O_CREAT)
	case 3:
		return s.write(r, p, unix.O_CREAT|unix.O_TRUNC)
	case 4:
		return s.write(r, p, unix.O_APPEND)
	case 5, 6:
		return os.Mkdir(p, 0o755)
	case 7:
		return unix.Rmdir(p)
	case 8, 9:
		return unix.Unlink(p)
	case 10, 11, 12:
		return unix.Rename(p, q)
	case 13:
		return unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, q, unix.RENAME_EXCHANGE)
	case 14:
		if r.IntN(8) > 0 {
			return nil
		}
		a, b := filepath.Join(s.dir, "deep/lead"), filepath.Join(s.dir, "deep/other")
		return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	case 15:
		return unix.Link(p, q)
	case 16:
		return unix.Symlink(fmt.Sprint("target ", r.IntN(100)), p)
	case 17:
		kinds := []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK}
		return unix.Mknod(p, kinds[r.IntN(4)]|0o600, int(unix.Mkdev(uint32(r.IntN(300)), uint32(r.IntN(70000)))))
	case 18:
		return unix.Fchmodat(unix.AT_FDCWD, p, uint32(r.IntN(0o10000)), 0)
	case 19:
		return unix.Lchown(p, r.IntN(3), r.IntN(3))
	case 20:
		return s.times(r, p)
	case 21:
		name := fmt.Sprintf("%s.a%d", []string{"user", "trusted", "security"}[r.IntN(3)], r.IntN(3))
		return unix.Lsetxattr(p, name, make([]byte, r.IntN(40)), 0)
	case 22:
		return unix.Lremovexattr(p, fmt.Sprintf("user.a%d", r.IntN(3)))
	case 23:
		return unix.Truncate(p, r.Int64N(100_000))
	case 24:
		return s.store(r, p)
	case 25:
		return s.unnamed(p)
	default:
		return os.MkdirAll(filepath.Join(s.dir, stormRoots[r.IntN(len(stormRoots))]), 0o755)
	}
}

func (s *stormer) times(r *rand.Rand, p string) error {
	secs := []int64{-1_000_000_000, -1, 0, 1 << 31, 5_000_000_000, 1_700_000_000}
	ts := []unix.Timespec{
		{Sec: secs[r.IntN(len(secs))], Nsec: r.Int64N(1e9)},
		{Sec: secs[r.IntN(len(secs))], Nsec: r.Int64N(1e9)},
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// open opens a regular file, never a FIFO or a device.
func (s *stormer) open(p string, flags int) (int, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, unix.EINVAL
	}
	// It may have become something else: then do not wait, and do not begin.
	return unix.Open(p, flags|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
}

func (s *stormer) write(r *rand.Rand, p string, flags int) error {
	fd, err := s.open(p, flags)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EINVAL
	}
	for range r.IntN(4) {
		if _, err := unix.Write(fd, make([]byte, r.IntN(9000))); err != nil {
			return err
		}
	}
	if r.IntN(4) == 0 {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 5000)
	}
	return nil
}

// store writes through a mapping, whose file may be closed by then.
func (s *stormer) store(r *rand.Rand, p string) error {
	fd, err := s.open(p, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size < 4096 || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EINVAL
	}
	m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	// A file that becomes shorter would end this process by SIGBUS, so the
	// kernel stores for us.
	for range 20 {
		remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&m[0])), Len: 8}}
		b := []byte("12345678")
		local := []unix.Iovec{{Base: &b[0], Len: 8}}
		if _, err := unix.ProcessVMWritev(os.Getpid(), local, remote, 0); err != nil {
			return err
		}
	}
	return nil
}

// unnamed gives a name to a file that had none.
func (s *stormer) unnamed(p string) error {
	fd, err := unix.Open(filepath.Dir(p), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Linkat(fd, "", unix.AT_FDCWD, p, unix.AT_EMPTY_PATH)
}
