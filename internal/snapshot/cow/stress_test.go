package cow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

// stressVariable is set in the children of TestStress, to the directory that
// they work in.
const stressVariable = "STILLPOINT_TEST_STRESS"

// TestStress takes snapshots while several processes do to the files everything
// that can be done to files. The truth is what the live volume shows while it is
// frozen; the snapshot has to show the same later, when all has changed.
// STILLPOINT_TEST_CAPTURES says how many to take.
func TestStress(t *testing.T) {
	if dir := os.Getenv(stressVariable); dir != "" {
		stress(dir)
		return
	}
	captures := 12
	if n, err := strconv.Atoi(os.Getenv("STILLPOINT_TEST_CAPTURES")); err == nil {
		captures = n
	}
	each(t, func(t *testing.T, r *rig) {
		for i := range 3 {
			dir := r.path(fmt.Sprint("stress", i))
			r.must(os.Mkdir(dir, 0o755))
			if i > 0 {
				stressed(t, dir) // open before the filter is there
			}
		}
		var later []func() // ends one
		late := 0
		for n := range captures {
			if n%4 == 1 {
				if len(later) == 6 { // in the middle of whatever it does
					later[0]()
					later = later[1:]
				}
				later = append(later, stressed(t, r.path("stress0"))) // and after
			}
			if !r.captureUnderStress(n) {
				late++
			}
			if t.Failed() {
				t.Fatalf("capture %d", n)
			}
			if n%100 == 99 {
				t.Logf("%d captures", n+1)
			}
		}
		t.Logf("%d captures, of which %d could not be compared", captures, late)
		if late > captures/2 {
			t.Error("too few were compared to show anything")
		}
	})
}

// stressed starts a process that changes files, until it is ended or the test
// is.
func stressed(t *testing.T, dir string) (end func()) {
	c := exec.Command(os.Args[0], "-test.run=^TestStress$")
	c.Env = append(os.Environ(), stressVariable+"="+dir)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() { _ = c.Process.Kill(); _ = c.Wait() }
	t.Cleanup(end)
	return end
}

// captureUnderStress takes one snapshot. It returns false when the truth could
// not be listed within the window, after which nobody is kept waiting: then there
// is nothing to compare with, and the snapshot is lost, and says so.
func (r *rig) captureUnderStress(n int) (compared bool) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	pending, err := r.p.Prepare(ctx, fmt.Sprint("stress", n), []snapshot.Target{r.target})
	r.must(err)
	defer func() { r.must(pending.Abort(context.Background())) }()
	r.must(pending.Hold(ctx))
	snaps, err := pending.Commit(ctx)
	if err != nil {
		r.must(errors.Join(err, pending.Resume(ctx)))
	}
	s := snaps[0]
	defer func() { r.must(s.Release(context.Background())) }()
	truth, err := manifest(r.dir)
	held := time.Since(s.(*target).shut)
	r.must(pending.Resume(ctx))
	if held >= window && errors.Is(s.Err(), errLate) {
		r.Logf("capture %d: listing what there is took until %v after the gate was shut", n, held)
		return false
	}
	r.must(err)
	time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
	// In turns: who comes later reads more of what was saved, and less live.
	var shown map[string]string
	read := map[string]func(){
		"view":   func() { shown = r.manifest(s.Root() + "/.") },
		"direct": func() { r.sameAs(s, r.described(r.reader(s.(*target))), truth) },
		"lent":   func() { r.sameAs(s, r.described(r.lent(s.(*target))), truth) },
	}
	for _, how := range [][]string{{"direct", "view", "lent"}, {"lent", "direct", "view"}, {"view", "lent", "direct"}}[n%3] {
		read[how]()
	}
	for _, g := range s.Gaps() {
		r.Logf("gap: %s %s %s", g.Path, g.Code, g.Reason)
		if g.Code != problem.FileTorn && g.Code != problem.FileGone {
			r.Errorf("%+v", g)
		}
		delete(truth, g.Path)
		delete(shown, g.Path)
		r.Errorf("a file was lost: %+v", g)
	}
	r.must(s.Err())
	r.sameAs(s, shown, truth)
	return true
}

// sameAs compares what a snapshot shows with the truth.
func (r *rig) sameAs(s snapshot.Snapshot, shown, truth map[string]string) {
	r.Helper()
	for _, name := range slices.Sorted(maps.Keys(truth)) {
		if shown[name] != truth[name] {
			r.Errorf("%s: the snapshot shows\n%s", name, difference(shown[name], truth[name]))
			r.explain(s.(*target), name)
		}
	}
	for name := range shown {
		if truth[name] == "" {
			r.Errorf("%s came into being", name)
		}
	}
}

// difference shows the words in which two lines differ.
func difference(shown, truth string) string {
	a, b := strings.Fields(shown), strings.Fields(truth)
	var out []string
	for i := range max(len(a), len(b)) {
		var x, y string
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			out = append(out, fmt.Sprintf("word %d: %s, but it was %s", i, x, y))
		}
	}
	return strings.Join(out[:min(len(out), 20)], "\n")
}

// explain says what is known of a file.
func (r *rig) explain(s *target, name string) {
	var st unix.Stat_t
	if unix.Lstat(filepath.Join(s.Root(), name), &st) != nil {
		return
	}
	for _, u := range s.hot {
		if u.Inode == st.Ino {
			r.Logf("hot: %+v", u)
		}
	}
	r.Logf("shield: %s", s.shield.Describe(st.Ino))
}

func (r *rig) manifest(dir string) map[string]string {
	r.Helper()
	m, err := manifest(dir)
	r.must(err)
	return m
}

// manifest describes every file below dir: attributes and content.
func manifest(dir string) (map[string]string, error) {
	m := map[string]string{}
	return m, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("%s of %s: %w", name, dir, err)
		}
		line := fmt.Sprintf("ino %d mode %o nlink %d uid %d size %d mtime %d.%09d ctime %d.%09d", st.Ino, st.Mode, st.Nlink, st.Uid, st.Size,
			st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec)
		if d.Type().IsRegular() {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			content, err := io.ReadAll(f)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			line += contentLine(content)
			value := make([]byte, 100)
			if n, err := unix.Lgetxattr(path, "user.stress", value); err == nil {
				line += fmt.Sprintf(" xattr %x", value[:n])
			}
		}
		m[name] = line
		return nil
	})
}

// stress changes files below dir for ever.
func stress(dir string) {
	if err := os.Chdir(dir); err != nil {
		panic(err)
	}
	s := &stressor{maps: map[string][]byte{}}
	for {
		s.step()
	}
}

type stressor struct {
	files []*os.File // kept open
	maps  map[string][]byte
}

func (s *stressor) name() string { return fmt.Sprint("f", rand.IntN(24)) }

// step does one thing. What fails because another step was there first is as
// good as any.
func (s *stressor) step() {
	const most = 256 << 10
	if rand.IntN(50) == 0 {
		time.Sleep(time.Millisecond)
	}
	offset, length := rand.Int64N(most), rand.Int64N(64<<10)
	switch rand.IntN(26) {
	case 0, 1, 2, 3, 4:
		s.with(func(f *os.File) { _, _ = f.WriteAt(noise(length), offset) })
	case 5:
		s.with(func(f *os.File) { _ = f.Truncate(offset) })
	case 6:
		_ = os.WriteFile(s.name(), noise(length), 0o644) // O_TRUNC
	case 7:
		if f, err := os.OpenFile(s.name(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err == nil {
			_, _ = f.Write(noise(length))
			f.Close()
		}
	case 8:
		modes := []uint32{0, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE}
		mode := modes[rand.IntN(len(modes))]
		if mode == unix.FALLOC_FL_COLLAPSE_RANGE || mode == unix.FALLOC_FL_INSERT_RANGE {
			offset, length = offset/4096*4096, 4096*(1+rand.Int64N(4))
		}
		s.with(func(f *os.File) {
			if st, err := f.Stat(); err == nil && st.Size() < 1<<20 {
				_ = unix.Fallocate(int(f.Fd()), mode, offset, length+1)
			}
		})
	case 9:
		_ = os.Rename(s.name(), s.name())
	case 10:
		_ = os.Remove(s.name())
	case 11:
		_ = os.Link(s.name(), s.name())
	case 12:
		_ = os.Chmod(s.name(), os.FileMode(0o600+rand.IntN(64)))
	case 13:
		_ = os.Chtimes(s.name(), time.Unix(rand.Int64N(1e9), rand.Int64N(1e9)), time.Unix(rand.Int64N(1e9), 5))
	case 14:
		_ = unix.Setxattr(s.name(), "user.stress", noise(rand.Int64N(50)), 0)
	case 15:
		d := fmt.Sprint("d", rand.IntN(5))
		if os.Mkdir(d, 0o755) != nil {
			_ = os.RemoveAll(d)
		} else {
			_ = os.WriteFile(d+"/x", noise(length), 0o644)
		}
	case 16:
		_ = os.Rename(fmt.Sprint("d", rand.IntN(5)), fmt.Sprint("d", rand.IntN(5), "/sub"))
	case 17, 18, 19:
		s.store(offset)
	case 20:
		s.direct(offset/4096*4096, (length/4096+1)*4096)
	case 21:
		s.with(func(from *os.File) {
			s.with(func(to *os.File) {
				if st, err := to.Stat(); err == nil && st.Size() < 1<<20 {
					_, _ = to.Seek(offset, io.SeekStart)
					_, _ = unix.Sendfile(int(to.Fd()), int(from.Fd()), &length, most)
				}
			})
		})
	case 22:
		s.with(func(from *os.File) {
			s.with(func(to *os.File) {
				at := rand.Int64N(most)
				_, _ = unix.CopyFileRange(int(from.Fd()), &offset, int(to.Fd()), &at, int(length), 0)
			})
		})
	case 23:
		s.with(func(to *os.File) { s.splice(to, offset) })
	case 24:
		s.with(func(from *os.File) {
			s.with(func(to *os.File) { _ = unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) })
		})
	case 25:
		for _, f := range s.files {
			f.Close()
		}
		s.files = nil
	}
}

// with opens a file, or takes one that is open.
func (s *stressor) with(do func(*os.File)) {
	if len(s.files) > 0 && rand.IntN(2) == 0 {
		do(s.files[rand.IntN(len(s.files))])
		return
	}
	f, err := os.OpenFile(s.name(), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return
	}
	if len(s.files) < 8 {
		s.files = append(s.files, f)
		do(f)
		return
	}
	do(f)
	f.Close()
}

// store stores into a mapping, new or old.
func (s *stressor) store(offset int64) {
	name := s.name()
	m := s.maps[name]
	if m == nil {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return
		}
		defer f.Close()
		if m, err = unix.Mmap(int(f.Fd()), 0, 128<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			return
		}
		s.maps[name] = m
	}
	// Beyond the end of the file a store is a SIGBUS; writing through the
	// kernel is not, and makes the same fault.
	at := int(offset) % (len(m) - 100)
	_, _ = unix.Pread(zeroFD(), m[at:at+100], 0)
	if rand.IntN(6) == 0 {
		delete(s.maps, name)
		_ = unix.Munmap(m)
	}
}

var urandom = -1

func zeroFD() int {
	if urandom < 0 {
		urandom, _ = unix.Open("/dev/urandom", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	return urandom
}

func (s *stressor) direct(offset, length int64) {
	f, err := os.OpenFile(s.name(), os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return
	}
	defer f.Close()
	b := make([]byte, length+4096)
	skip := (4096 - int(uintptr(unsafe.Pointer(&b[0]))%4096)) % 4096
	b = b[skip : skip+int(length)]
	copy(b, noise(length))
	_, _ = f.WriteAt(b, offset)
}

func (s *stressor) splice(to *os.File, offset int64) {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	defer r.Close()
	_, _ = w.Write(noise(5000))
	w.Close()
	_, _ = unix.Splice(int(r.Fd()), nil, int(to.Fd()), &offset, 5000, 0)
}

func noise(n int64) []byte {
	b := make([]byte, n)
	for i := 0; i < len(b); i += 64 {
		b[i] = byte(rand.Uint32())
	}
	return b
}
