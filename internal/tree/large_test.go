package tree

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/sys/file"
)

const deep = 5000

// makeDeep makes a chain of directories, each with one file, under a name long
// enough that paths are beyond every limit.
func makeDeep(t *testing.T, root string, depth int) {
	t.Helper()
	fd, err := file.Open(file.Here, root, file.Read|file.Directory)
	if err != nil {
		t.Fatal(err)
	}
	for i := range depth {
		name := deepName(i)
		if err := file.MakeDirectory(fd, name); err != nil {
			t.Fatal(err)
		}
		next, err := file.Open(fd, name, file.Read|file.Directory)
		if err != nil {
			t.Fatal(err)
		}
		f, err := file.Open(next, "file", file.Write|file.New)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(f, []byte(strconv.Itoa(i)), 0); err != nil {
			t.Fatal(err)
		}
		if err := closeAll([]int{f, fd}); err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	if err := file.Close(fd); err != nil {
		t.Fatal(err)
	}
}

func deepName(i int) string { return fmt.Sprintf("level-%d", i) }

// limitDescriptors leaves the process few descriptors while the test runs.
func limitDescriptors(t *testing.T, n uint64) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	})
}

// TestDepth copies a tree that no path leads through, with few descriptors.
func TestDepth(t *testing.T) {
	root := t.TempDir()
	from, to := filepath.Join(root, "from"), filepath.Join(root, "to")
	if err := os.Mkdir(from, 0o755); err != nil {
		t.Fatal(err)
	}
	makeDeep(t, from, deep)
	limitDescriptors(t, 200)
	start := time.Now()
	c := copyTree(t, Source{Path: "/live", Root: from}, to)
	t.Logf("%d levels in %v", deep, time.Since(start))
	if got := c.outcomes[Made]; got != 2*deep {
		t.Errorf("%d entries were made, not %d", got, 2*deep)
	}
	if err := checkDeep(to); err != nil {
		t.Error(err)
	}
}

// checkDeep reads the copy without what is tested.
func checkDeep(root string) error {
	fd, err := syscall.Open(root, syscall.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(fd) }()
	for i := range deep {
		next, err := syscall.Openat(fd, deepName(i), syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
		if err != nil {
			return fmt.Errorf("level %d: %w", i, err)
		}
		_ = syscall.Close(fd)
		fd = next
		f, err := syscall.Openat(fd, "file", syscall.O_RDONLY, 0)
		if err != nil {
			return fmt.Errorf("file of level %d: %w", i, err)
		}
		buf := make([]byte, 100)
		n, _ := syscall.Read(f, buf)
		_ = syscall.Close(f)
		if string(buf[:n]) != strconv.Itoa(i) {
			return fmt.Errorf("file of level %d holds %q", i, buf[:n])
		}
	}
	return nil
}

// TestManyDirectoriesAtOnce has several goroutines jump between directories of
// a deep tree, far more than may be open.
func TestManyDirectoriesAtOnce(t *testing.T) {
	root := t.TempDir()
	makeDeep(t, root, 600)
	limitDescriptors(t, 200)
	n, err := Open(Source{Path: "/live", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	dirs := []*Dir{n.Dir}
	for i := range 600 {
		d, err := dirs[i].OpenDir(deepName(i))
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, d)
	}
	var wg sync.WaitGroup
	var looked atomic.Int64
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				level := (i*7919 + g*104729) % 600
				names, err := dirs[level+1].Names()
				if err != nil || !slices.Contains(names, Name{"file", false}) {
					t.Errorf("level %d: %v, %v", level, names, err)
					return
				}
				e, err := dirs[level+1].Stat("file")
				if err != nil || e.Size != int64(len(strconv.Itoa(level))) {
					t.Errorf("level %d: %+v, %v", level, e, err)
					return
				}
				if i%10 == 0 {
					_ = dirs[level+1].Close()
				}
				looked.Add(1)
			}
		})
	}
	wg.Wait()
	if looked.Load() != 8*300 {
		t.Errorf("only %d looks", looked.Load())
	}
}

// TestManyNames lists one directory of 200,000 names, or of a million with
// STILLPOINT_TEST_LARGE=1.
func TestManyNames(t *testing.T) {
	count := 200_000
	if testing.Short() {
		count = 20_000
	}
	if os.Getenv("STILLPOINT_TEST_LARGE") != "" {
		count = 1_000_000
	}
	root := t.TempDir()
	first := filepath.Join(root, "0000000")
	if err := os.WriteFile(first, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < count; i++ {
		// Hard links are made faster than files.
		if i%60_000 == 0 {
			first = filepath.Join(root, fmt.Sprintf("%07d", i))
			if err := os.WriteFile(first, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.Link(first, filepath.Join(root, fmt.Sprintf("%07d", i))); err != nil {
			t.Fatal(err)
		}
	}
	n, err := Open(Source{Path: "/live", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	names, err := n.Dir.Names()
	took := time.Since(start)
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	perName := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / int64(count)
	t.Logf("%d names in %v, %d bytes each", count, took, perName)
	if perName > 64 {
		t.Errorf("a name takes %d bytes of memory", perName)
	}
	if len(names) != count {
		t.Fatalf("%d names, not %d", len(names), count)
	}
	for i, name := range names {
		if name.Name != fmt.Sprintf("%07d", i) || name.IsDir {
			t.Fatalf("name %d is %+v", i, name)
		}
	}
}
