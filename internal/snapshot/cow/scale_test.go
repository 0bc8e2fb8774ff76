package cow

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/freeze"
)

// scaleDescriptors is how many descriptors a set may take, however many files
// there are: those of eight listeners, of the groups and of the keeper's
// sockets.
const scaleDescriptors = 100

// TestScale takes a snapshot of very many files. STILLPOINT_TEST_FILES says how
// many. It states what that costs, and shows that the number of descriptors
// does not grow, that what is deleted stays readable, and that beyond the budget
// for that each file that is gone is named, and no other one.
func TestScale(t *testing.T) {
	scratch.NeedRoot(t)
	files := 30_000
	if n, err := strconv.Atoi(os.Getenv("STILLPOINT_TEST_FILES")); err == nil {
		files = n
	}
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			var format scratch.Option = scratch.Format()
			if fs == "ext4" {
				format = scratch.Format("-N", fmt.Sprint(files*5/4+1000))
			}
			v := scratch.New(t, fs, max(400*scratch.MiB, int64(files)*12<<10), format)
			found, _ := scratch.Find(t, v.Dir)
			r := &rig{T: t, dir: v.Dir, p: New(host, Options{}), target: snapshot.Target{Volume: found, Paths: []string{"."}}}
			r.fill(files)
			r.deletedStay(files)
			r.fill(files)
			r.budgetIsKept(files)
		})
	}
}

// scaleName spreads the files over directories of 500.
func scaleName(n int) string { return fmt.Sprintf("d%d/file%d", n/500, n) }

func scaleContent(n int) string { return strings.Repeat(fmt.Sprint("original ", n, "\n"), 5) }

// fill makes those files that are not there.
func (r *rig) fill(files int) {
	r.Helper()
	var wait sync.WaitGroup
	errs := make([]error, 4)
	for part := range errs {
		wait.Go(func() {
			for n := part; n < files && errs[part] == nil; n += len(errs) {
				_ = os.Mkdir(filepath.Dir(r.path(scaleName(n))), 0o755)
				errs[part] = os.WriteFile(r.path(scaleName(n)), []byte(scaleContent(n)), 0o644)
			}
		})
	}
	wait.Wait()
	r.must(errors.Join(errs...))
	root, err := os.Open(r.dir)
	r.must(err)
	defer root.Close()
	r.must(freeze.Sync(root)) // the kernel cannot forget what is dirty
}

// deletedStay deletes a third of the files and changes another one; the
// snapshot shows all as they were.
func (r *rig) deletedStay(files int) {
	r.Helper()
	r.p.o.Keep = 0 // no limit
	before, slab := descriptors(r.T), slabBytes(r.T)
	s := r.take(nil)
	taken := descriptors(r.T) - before
	r.Logf("%d files: %d descriptors, %d bytes of kernel slab for a file", files, taken, (slabBytes(r.T)-slab)/int64(files))
	if taken > scaleDescriptors {
		r.Errorf("%d descriptors for %d files", taken, files)
	}
	for n := range files {
		switch n % 3 {
		case 0:
			r.must(os.Remove(r.path(scaleName(n))))
		case 1:
			if n%50 == 1 {
				r.must(os.WriteFile(r.path(scaleName(n)), []byte("changed"), 0o644))
			}
		}
	}
	step := max(1, files/5000) // reading them all takes long
	for n := 0; n < files; n += step {
		if got := string(r.read(s, scaleName(n))); got != scaleContent(n) {
			r.Fatalf("%s reads %.40q", scaleName(n), got)
		}
	}
	if gaps := s.Gaps(); len(gaps) > 0 {
		r.Errorf("%d gaps, the first is %+v", len(gaps), gaps[0])
	}
	r.must(s.Err())
	r.must(s.Release(r.Context()))
	if left := descriptors(r.T) - before; left > 0 {
		r.Errorf("%d descriptors are left", left)
	}
}

// budgetIsKept deletes more files than may be kept.
func (r *rig) budgetIsKept(files int) {
	r.Helper()
	r.p.o.Keep = int64(files / 2)
	s := r.take(nil)
	for n := range files {
		r.must(os.Remove(r.path(scaleName(n))))
	}
	gone := map[string]bool{}
	for n := range files {
		b, err := os.ReadFile(filepath.Join(s.Root(), scaleName(n)))
		switch {
		case err != nil:
			gone[scaleName(n)] = true
		case string(b) != scaleContent(n):
			r.Fatalf("%s reads %.40q", scaleName(n), b)
		}
	}
	dirs := files/500 + 2 // are kept, too
	if len(gone) == 0 || len(gone) > files/2+dirs {
		r.Errorf("%d of %d files are gone, and %d could be kept, with %d directories", len(gone), files, files/2, dirs)
	}
	for _, g := range s.Gaps() {
		if g.Code != problem.FileGone || !gone[g.Path] {
			r.Fatalf("named is %+v", g)
		}
		delete(gone, g.Path)
	}
	if len(gone) > 0 {
		r.Errorf("%d files are gone and not named", len(gone))
	}
	r.must(s.Err())
	r.must(s.Release(r.Context()))
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// slabBytes is what those of the kernel's objects take that it cannot forget.
// XFS forgets in the background, so it is asked until nothing changes.
func slabBytes(t *testing.T) int64 {
	t.Helper()
	now := int64(1 << 62)
	for range 20 {
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
			t.Fatal(err)
		}
		last := now
		if now = slab(t); last-now < 256<<10 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return now
}

func slab(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Slab:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			return kib << 10
		}
	}
	t.Fatal("/proc/meminfo has no Slab")
	return 0
}
