package index

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/inode"
)

var many = flag.Int("many", 20_000, "files in tests of numbers")

// fill makes n empty files in directories of some hundred.
func (v *volume) fill(t testing.TB, dir string, n int) {
	t.Helper()
	for i := range n {
		d := v.path(dir, fmt.Sprintf("some directory %d", i/300))
		if i%300 == 0 {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Mknod(filepath.Join(d, fmt.Sprintf("a file name of usual length %d", i)), unix.S_IFREG|0o644, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func bigVolume(t testing.TB, fsType string) *volume {
	return newVolume(t, fsType, max(sizes[fsType], int64(*many)*20_000))
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// The freeze does not last longer where there is more.
func TestFinishTime(t *testing.T) {
	for fsType := range sizes {
		t.Run(fsType, func(t *testing.T) {
			v := bigVolume(t, fsType)
			v.fill(t, "few", 1000)
			v.fill(t, "many", *many)
			times := map[string]time.Duration{}
			for _, tree := range []string{"few", "many"} {
				for _, changes := range []int{0, 200} {
					var all []time.Duration
					for range 5 {
						k := keeper(t)
						before := heap()
						start := time.Now()
						b := build(t, v, Options{Keeper: k}, tree)
						built := time.Since(start)
						if err := b.Settle(t.Context(), 0); err != nil {
							t.Fatal(err)
						}
						grown := heap() - before
						if err := b.Watchful(); err != nil {
							t.Fatal(err)
						}
						for i := range changes {
							if err := os.Chmod(v.path(tree, "some directory 0", fmt.Sprintf("a file name of usual length %d", i)), os.FileMode(0o600+i%2)); err != nil {
								t.Fatal(err)
							}
						}
						v.frozen(t, func() {
							start := time.Now()
							x, err := b.Finish(nil)
							all = append(all, time.Since(start))
							if err != nil {
								t.Fatal(err)
							}
							t.Cleanup(func() { x.Close() })
						})
						if len(all) == 1 {
							n := b.table.count.Load()
							t.Logf("%s: %d inodes, built in %v (%.1f µs each), %d bytes of heap each", tree, n, built, float64(built.Microseconds())/float64(n), grown/n)
						}
					}
					times[fmt.Sprint(tree, changes)] = median(all)
					t.Logf("%s with %d changes: Finish took %v", tree, changes, all)
				}
			}
			for _, changes := range []int{0, 200} {
				short, long := times[fmt.Sprint("few", changes)], times[fmt.Sprint("many", changes)]
				if long > 3*short+2*time.Millisecond {
					t.Errorf("%d changes: %v of %d files, %v of 1000", changes, long, *many, short)
				}
			}
		})
	}
}

// A directory that is moved is not read again; one that comes from outside is,
// up to a limit.
func TestMovedDirectory(t *testing.T) {
	everyFS(t, func(t *testing.T, v *volume) {
		v.fill(t, "sel/inside", 3000)
		v.fill(t, "out/outside", 3000)
		v.fill(t, "sel/small", 10)
		b := build(t, v, Options{Late: 100, Keeper: keeper(t)}, "sel")
		if err := b.Settle(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		seen := b.total.Load()
		rename := func(from, to string) {
			t.Helper()
			if err := os.Rename(v.path(from), v.path(to)); err != nil {
				t.Fatal(err)
			}
		}
		rename("sel/inside", "sel/small/moved")
		if err := b.Settle(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		rename("sel/small/moved", "sel/again")
		if b.total.Load() != seen {
			t.Errorf("%d files were seen for the first time after a rename", b.total.Load()-seen)
		}
		rename("out/outside", "sel/outside")
		v.frozen(t, func() {
			x, err := b.Finish(nil)
			var late *TooLateError
			if !errors.As(err, &late) || late.Most != 100 {
				t.Errorf("%v, %v", x, err)
			}
		})
		if err := b.Settle(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		rename("sel/again", "out/again")
		rename("sel/small", "out/small")
		v.fill(t, "sel/fresh", 20)
		x := finish(t, v, b, nobody, "sel")
		if x.Len() > 3100 {
			t.Errorf("%d inodes", x.Len())
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What is deleted right before the instant does not hold up the end of the
// freeze, and what is deleted after it can still be read.
func TestDeleted(t *testing.T) {
	everyFS(t, func(t *testing.T, v *volume) {
		for i := range 600 {
			if err := os.WriteFile(v.path(fmt.Sprint(i)), []byte(fmt.Sprint(i)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		k := keeper(t)
		b := build(t, v, Options{Keeper: k}, ".")
		var open []*os.File
		for i := range 300 { // of which the last reference is the keeper's or these
			f, err := os.Open(v.path(fmt.Sprint(i)))
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, f)
			if err := os.Remove(f.Name()); err != nil {
				t.Fatal(err)
			}
		}
		var x *Index
		v.frozen(t, func() {
			var err error
			if x, err = b.Finish(nil); err != nil {
				t.Fatal(err)
			}
			if n := b.late.Count(); n < len(open) {
				t.Errorf("%d of %d deleted files are kept for the thaw", n, len(open))
			}
			check(t, flatten(t, x), v.walk(t, []string{"."}))
		})
		if err := x.Thawed(); err != nil {
			t.Error(err)
		}
		for _, f := range open {
			f.Close()
		}
		for _, c := range x.Root().Children {
			if in := x.Inode(c.Number); in.IsRegular() {
				if err := os.Remove(v.path(c.Name)); err != nil {
					t.Fatal(err)
				}
				fd, err := inode.Open(int(v.root.Fd()), in.Handle, unix.O_RDONLY)
				if err != nil {
					t.Fatalf("%s: %v", c.Name, err)
				}
				p := make([]byte, 10)
				if n, err := unix.Read(fd, p); string(p[:n]) != c.Name {
					t.Errorf("%s holds %q, %v", c.Name, p[:n], err)
				}
				unix.Close(fd)
			}
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Settle ends with its context, and says how much is left.
func TestNotQuiet(t *testing.T) {
	v := newVolume(t, "ext4", sizes["ext4"])
	s := startStorm(t, v, 1, 4)
	b := build(t, v, Options{}, ".")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := b.Settle(ctx, -1) // which is never
	var busy *NotQuietError
	if !errors.As(err, &busy) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	t.Log(err)
	s.stop()
	if err := b.Settle(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	x := finish(t, v, b, nobody, ".")
	if err := errors.Join(x.Close(), b.Close()); err != nil {
		t.Error(err)
	}
}

// A Build that is cancelled leaves nothing open.
func TestCancelled(t *testing.T) {
	v := newVolume(t, "ext4", sizes["ext4"])
	v.fill(t, "sel", 3000)
	before := descriptors(t)
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
		b, err := Build(ctx, v.root, []string{"."}, Options{})
		cancel()
		if err == nil {
			err = b.Close()
		} else if errors.Is(err, context.DeadlineExceeded) {
			err = nil
		}
		if err != nil {
			t.Error(err)
		}
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Mounts in the trees do not show, and selected paths lead nowhere else.
func TestSelection(t *testing.T) {
	everyFS(t, func(t *testing.T, v *volume) {
		for _, d := range []string{"sel/under/x", "sel/y", "a/b/c", "a/z"} {
			if err := os.MkdirAll(v.path(d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		want := v.walk(t, []string{"sel", "a/b"})
		if err := unix.Mount("tmpfs", v.path("sel/under"), "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(v.path("sel/under"), unix.MNT_DETACH) })
		b := build(t, v, Options{}, "sel", "a/b", "./a//b/c/", "none/x")
		v.frozen(t, func() {
			x, err := b.Finish([]uint64{1 << 40})
			if err != nil {
				t.Fatal(err)
			}
			check(t, flatten(t, x), want)
			if n, ok := x.Root().Child("sel"); !ok || x.Path(n) != "sel" {
				t.Errorf("sel is %d, %t", n, ok)
			}
			if _, ok := x.Root().Child("lost+found"); ok {
				t.Error("lost+found is not selected")
			}
			t.Cleanup(func() { x.Close() })
		})
		for _, bad := range []string{"/sel", "..", "../x", "a/../../x"} {
			if b, err := Build(t.Context(), v.root, []string{bad}, Options{}); err == nil {
				b.Close()
				t.Errorf("%q was taken", bad)
			}
		}
	})
}

// Where handles are strange, a Build fails and does not go wrong.
func TestOtherFileSystem(t *testing.T) {
	v := scratch.New(t, "btrfs", 200*scratch.MiB)
	f, err := os.Open(v.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := Build(t.Context(), f, []string{"."}, Options{}); err == nil {
		b.Close()
		t.Error("it was taken")
	} else {
		t.Log(err)
	}
}
