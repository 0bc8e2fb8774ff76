package index

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/freeze"
	"stillpoint/internal/sys/inode"
)

// sizes are those of scratch volumes, by file system.
var sizes = map[string]int64{"ext4": 256 * scratch.MiB, "xfs": 400 * scratch.MiB}

// everyFS runs a test on ext4 and on XFS.
func everyFS(t *testing.T, f func(t *testing.T, v *volume)) {
	for _, fsType := range slices.Sorted(maps.Keys(sizes)) {
		t.Run(fsType, func(t *testing.T) { f(t, newVolume(t, fsType, sizes[fsType])) })
	}
}

// A volume is a scratch volume that can be frozen without danger.
type volume struct {
	dir  string
	root *os.File // the private mount
}

// frozenMost is how long a freeze may last: longer, and the test has failed.
const frozenMost = 60 * time.Second

func newVolume(t testing.TB, fsType string, size int64) *volume {
	t.Helper()
	v, _ := newVolumeOn(t, fsType, size)
	return v
}

// newVolumeOn is newVolume, and returns the device, too.
func newVolumeOn(t testing.TB, fsType string, size int64) (v *volume, device string) {
	t.Helper()
	s := scratch.New(t, fsType, size)
	v = &volume{dir: s.Dir}
	live, err := os.Open(v.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if v.root, err = inode.Clone(live); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.root.Close() })
	// This process may die with the volume frozen: another one thaws it then.
	c := exec.Command("sh", "-c", `cat >/dev/null; fsfreeze --unfreeze "$1" 2>/dev/null; true`, "thaw", v.dir)
	pipe, err := c.StdinPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pipe.Close()
		_ = c.Wait()
	})
	return v, s.Devices[0]
}

// frozen runs f while the volume is frozen, and returns how long f took.
func (v *volume) frozen(t testing.TB, f func()) time.Duration {
	t.Helper()
	thaw := sync.OnceFunc(func() { _ = freeze.Thaw(v.root) })
	t.Cleanup(thaw)
	defer thaw()
	if err := freeze.Sync(v.root); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(frozenMost, thaw)
	if err := freeze.Freeze(v.root); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	f()
	took := time.Since(start)
	if !late.Stop() {
		t.Error("the volume was frozen for too long")
	}
	return took
}

// path is the live path of a name.
func (v *volume) path(name ...string) string {
	return filepath.Join(append([]string{v.dir}, name...)...)
}

// A record is what is compared of a file. Blocks and access times may move
// without a change.
type record struct {
	Number, Nlink               uint64
	Mode, UID, GID, Rdev, Flags uint32
	Size                        int64
	Mtime, Ctime, Btime         [2]int64
	XAttrs, Target, Handle      string
}

func recordOf(in *Inode) record {
	unixTime := func(t inode.Time) (x [2]int64) { x[0], x[1] = t.Unix(); return x }
	r := record{
		Number: in.Number, Nlink: uint64(in.Nlink), Mode: in.Mode, UID: in.UID, GID: in.GID, Rdev: in.Rdev, Flags: in.Flags,
		Size: in.Size, Mtime: unixTime(in.Mtime), Ctime: unixTime(in.Ctime), Btime: unixTime(in.Btime), Target: in.Target,
		Handle: fmt.Sprint(in.Handle),
	}
	for _, a := range in.XAttrs {
		r.XAttrs += fmt.Sprintf("%s=%q ", a.Name, a.Value)
	}
	return r
}

// walk describes what an index of the paths must hold, in another way: by
// names, from the live directory.
func (v *volume) walk(t testing.TB, paths []string) map[string]record {
	t.Helper()
	all := map[string]record{}
	var walk func(rel string)
	walk = func(rel string) {
		if !selected(paths, rel) {
			return
		}
		st, ok := v.describe(t, rel)
		if !ok {
			return
		}
		all[rel] = st
		if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			return
		}
		entries, err := os.ReadDir(v.path(rel))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			walk(filepath.Join(rel, e.Name()))
		}
	}
	walk(".")
	return all
}

// selected tells whether a path is selected or on the way.
func selected(paths []string, rel string) bool {
	return slices.ContainsFunc(paths, func(p string) bool {
		return p == "." || p == rel || strings.HasPrefix(rel, p+"/") || rel == "." || strings.HasPrefix(p, rel+"/")
	})
}

func (v *volume) describe(t testing.TB, rel string) (r record, ok bool) {
	t.Helper()
	path := v.path(rel)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err == unix.ENOENT {
		return r, false
	} else if err != nil {
		t.Fatal(path, err)
	}
	var stx unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &stx); err != nil {
		t.Fatal(path, err)
	}
	r = record{
		Number: st.Ino, Nlink: st.Nlink, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Rdev: uint32(st.Rdev), Size: st.Size,
		Mtime: [2]int64{st.Mtim.Sec, st.Mtim.Nsec}, Ctime: [2]int64{st.Ctim.Sec, st.Ctim.Nsec},
		Btime: [2]int64{stx.Btime.Sec, int64(stx.Btime.Nsec)},
	}
	if r.Mode&unix.S_IFMT == unix.S_IFLNK {
		r.Target, _ = os.Readlink(path)
	}
	kernel, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		t.Fatal(path, err)
	}
	h, _ := inode.New(kernel.Type(), kernel.Bytes())
	r.Handle = fmt.Sprint(h)
	buf := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatal(path, err)
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	for _, name := range names {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			t.Fatal(path, name, err)
		}
		r.XAttrs += fmt.Sprintf("%s=%q ", name, buf[:n])
	}
	if m := r.Mode & unix.S_IFMT; m == unix.S_IFREG || m == unix.S_IFDIR {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0)
		if err != nil {
			t.Fatal(path, err)
		}
		defer unix.Close(fd)
		if r.Flags, err = unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS); err != nil {
			t.Fatal(path, err)
		}
		r.Flags &= keptFlags | dirFlags
	}
	return r, true
}

// flatten lists what an index holds by path.
func flatten(t testing.TB, x *Index) map[string]record {
	t.Helper()
	all := map[string]record{}
	numbers := map[uint64]bool{}
	var walk func(rel string, in *Inode)
	walk = func(rel string, in *Inode) {
		all[rel] = recordOf(in)
		numbers[in.Number] = true
		if !slices.IsSortedFunc(in.Children, func(a, b Child) int { return strings.Compare(a.Name, b.Name) }) {
			t.Errorf("%s: the names are not sorted", rel)
		}
		for _, c := range in.Children {
			child := x.Inode(c.Number)
			if child == nil {
				t.Errorf("%s/%s: inode %d is not indexed", rel, c.Name, c.Number)
				continue
			}
			walk(filepath.Join(rel, c.Name), child)
		}
	}
	walk(".", x.Root())
	for number := range numbers {
		if p := x.Path(number); all[p].Number != number {
			t.Errorf("Path(%d) = %q, which is %d", number, p, all[p].Number)
		}
	}
	if n := x.Len(); n != len(numbers) {
		t.Logf("Len() = %d, %d inodes can be reached", n, len(numbers)) // as may be before Thawed
		if n < len(numbers) {
			t.Errorf("Len() = %d, %d inodes can be reached", n, len(numbers))
		}
	}
	return all
}

// check compares an index with the frozen volume.
func check(t testing.TB, got, want map[string]record) {
	t.Helper()
	faults := 0
	fault := func(format string, args ...any) {
		if faults++; faults <= 10 {
			t.Errorf(format, args...)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(want)) {
		g, ok := got[path]
		if !ok {
			fault("%s is not indexed: %+v", path, want[path])
		} else if w := want[path]; !reflect.DeepEqual(g, w) {
			fault("%s:\n index %+v\n  live %+v", path, g, w)
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			fault("%s is indexed and not there: %+v", path, got[path])
		}
	}
	if faults > 10 {
		t.Errorf("%d differences in all", faults)
	}
}

// writers returns the inode numbers of what the storm has open for writing or
// mapped so that it can be written, as a search of /proc finds them.
func (s *storm) writers(t testing.TB) []uint64 {
	t.Helper()
	found := map[uint64]bool{}
	proc := fmt.Sprintf("/proc/%d", s.pid)
	entries, err := os.ReadDir(proc + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := os.ReadFile(proc + "/fdinfo/" + e.Name())
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(info), "flags:\t")
		flags, _, _ := strings.Cut(rest, "\n")
		n, _ := strconv.ParseUint(flags, 8, 64)
		var st unix.Stat_t
		if n&unix.O_ACCMODE != 0 && unix.Stat(proc+"/fd/"+e.Name(), &st) == nil {
			found[st.Ino] = true
		}
	}
	b, err := os.ReadFile(proc + "/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if strings.HasSuffix(f[1], "s") {
			n, _ := strconv.ParseUint(f[4], 10, 64)
			found[n] = true
		}
	}
	return slices.Collect(maps.Keys(found))
}
