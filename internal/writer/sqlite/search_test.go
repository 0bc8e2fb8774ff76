package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/writer"
)

// ids are the names of the databases below paths, without their common directory.
func ids(t testing.TB, dir string, paths ...string) (names []string) {
	t.Helper()
	all, err := New(Options{}).Discover(t.Context(), writer.Scope{Paths: paths})
	must(t, err)
	for _, in := range all {
		names = append(names, strings.TrimPrefix(in.About().ID, "sqlite:"+dir+"/"))
	}
	return names
}

// A database that somebody uses is found whatever its size is just then; what has
// such a size and is not used has been cut off.
func TestOddSize(t *testing.T) {
	for _, mode := range []string{"delete", "truncate", "persist", "wal"} {
		for _, size := range []int{512, 4096, 65536} {
			dir := t.TempDir()
			path := filepath.Join(dir, "app.db")
			must(t, os.WriteFile(path, nil, 0o644))
			d := &database{t, path}
			d.do(fmt.Sprintf("PRAGMA page_size=%d; PRAGMA journal_mode=%s; CREATE TABLE changes (client, n);", size, mode))
			want := []string{"app.db"}
			if got := ids(t, dir, dir); !slices.Equal(got, want) {
				t.Fatalf("%s, pages of %d: found %q", mode, size, got)
			}
			for _, more := range []int{1, 100, 1536, 4096} {
				whole := more%size == 0
				must(t, os.Truncate(path, int64(fileSize(t, path)/size*size+more)))
				if got := ids(t, dir, dir); slices.Equal(got, want) != whole && !exists(path+"-journal") {
					t.Errorf("%s, pages of %d, %d more, not used: found %q", mode, size, more, got)
				}
			}
			must(t, os.Truncate(path, int64(fileSize(t, path)/size*size+100)))
			c := connect(d)
			if answer := c.ask("BEGIN IMMEDIATE; INSERT INTO changes VALUES (1, 1);"); answer != "" {
				t.Fatal(answer)
			}
			if got := ids(t, dir, dir); !slices.Equal(got, want) {
				t.Errorf("%s, pages of %d, used: found %q", mode, size, got)
			}
			if got := ids(t, dir, path); !slices.Equal(got, want) {
				t.Errorf("%s, pages of %d, used and selected: found %q", mode, size, got)
			}
			if answer := c.ask("COMMIT;"); answer != "" {
				t.Fatal(answer)
			}
		}
	}
}

func fileSize(t *testing.T, path string) int {
	fi, err := os.Stat(path)
	must(t, err)
	return int(fi.Size())
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// Which of its names a database is known by does not depend on which of those who
// look is faster.
func TestSameNames(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	content, err := os.ReadFile(create(t, outside+"/x.db", "delete").path)
	must(t, err)
	want := map[string]bool{}
	for i := range 30 {
		for j := range 10 {
			sub := fmt.Sprintf("d%02d/s%d", i, j)
			must(t, os.MkdirAll(filepath.Join(dir, sub), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, sub, "text"), content[1:], 0o644))
			name := sub + "/a.db"
			must(t, os.WriteFile(filepath.Join(dir, name), content, 0o644))
			want[name] = true
			if i > 0 { // and the name before it is the first
				must(t, os.Link(filepath.Join(dir, fmt.Sprintf("d%02d/s%d/a.db", i-1, j)), filepath.Join(dir, sub, "z.db")))
			}
		}
	}
	mounts := map[string]string{"d05/s3/in": dir + "/d07", "far": outside}
	for i := range 20 {
		mounts[fmt.Sprint(i)] = fmt.Sprintf("%s/d%02d", dir, i)
	}
	for at, of := range mounts {
		must(t, os.MkdirAll(filepath.Join(dir, at), 0o755))
		must(t, syscall.Mount(of, filepath.Join(dir, at), "", syscall.MS_BIND, ""))
		t.Cleanup(func() { must(t, syscall.Unmount(filepath.Join(dir, at), syscall.MNT_DETACH)) })
	}
	want["far/x.db"] = true
	for range 20 {
		got := ids(t, dir, dir)
		if len(got) != len(want) {
			t.Fatalf("%d are found, want %d", len(got), len(want))
		}
		for _, name := range got {
			if !want[name] {
				t.Fatalf("found as %s", name)
			}
		}
	}
	if got := ids(t, dir, dir+"/0", dir); len(got) != len(want) || !slices.Contains(got, "0/s0/a.db") {
		t.Errorf("by the first path: %d, %q", len(got), got)
	}
}

// Directories that get each other's names after these were read, or the name of one
// that is gone, as when a new release is put in the place of an old one, are looked
// into all the same.
func TestExchanged(t *testing.T) {
	for _, gone := range []bool{false, true} {
		dir := t.TempDir()
		content, err := os.ReadFile(create(t, t.TempDir()+"/x.db", "delete").path)
		must(t, err)
		for _, sub := range []string{"app", "app.new"} {
			must(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, sub, sub+".db"), content, 0o644))
		}
		f := &finding{seen: map[inode]bool{}, found: map[inode]hit{}}
		info, err := file.Stat(file.Here, dir, file.NoFollow)
		must(t, err)
		s := f.search(t.Context(), 0, dir, info.Device)
		below, err := s.look(folder{dir, info.Mount})
		must(t, err)
		want := []string{dir + "/app/app.new.db"}
		must(t, os.Rename(dir+"/app", t.TempDir()+"/old"))
		must(t, os.Rename(dir+"/app.new", dir+"/app"))
		if !gone {
			must(t, os.Mkdir(dir+"/app.new", 0o755))
			must(t, os.WriteFile(dir+"/app.new/app.db", content, 0o644))
			want = append(want, dir+"/app.new/app.db")
		}
		for _, b := range below {
			s.folder(b)
		}
		s.wait.Wait()
		must(t, s.result())
		var got []string
		for _, h := range f.found {
			got = append(got, h.path)
		}
		slices.SortFunc(got, compare)
		if !slices.Equal(got, want) {
			t.Errorf("gone %t: found %q, want %q", gone, got, want)
		}
	}
}

// Of very many that cannot be looked at not all are told of, but how many there are.
func TestManyFail(t *testing.T) {
	f := &finding{seen: map[inode]bool{}, found: map[inode]hit{}}
	s := f.search(t.Context(), 0, "/srv", 0)
	for i := range toldOf + 7 {
		s.failed(fmt.Errorf("%d: %w", i, syscall.EIO))
		s.failed(syscall.ENOENT) // it was deleted
	}
	err := s.result()
	if got := strings.Split(err.Error(), "\n"); len(got) != toldOf+1 || got[toldOf] != "and 7 more files or directories" || !errors.Is(err, syscall.EIO) {
		t.Errorf("%d lines: %q", len(got), got)
	}
}

// Who is not to look any more says so.
func TestSearchEnds(t *testing.T) {
	dir := t.TempDir()
	create(t, dir+"/x.db", "delete")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	all, err := New(Options{}).Discover(ctx, writer.Scope{Paths: []string{dir}})
	wants(t, problem.WriterTimeout, err)
	if len(all) > 0 {
		t.Errorf("%d are found", len(all))
	}
}

// BenchmarkDiscover is the search through files none of which is a database: that
// the kernel has in memory, and that it has to read from a file system first. The
// search of a backup is most often the second.
func BenchmarkDiscover(b *testing.B) {
	b.Run("memory", func(b *testing.B) { benchmark(b, b.TempDir(), func() {}) })
	for _, kind := range []string{"btrfs", "ext4"} {
		b.Run(kind, func(b *testing.B) {
			v := scratch.New(b, kind, 512*scratch.MiB)
			benchmark(b, v.Dir, func() {
				scratch.Run(b, "sync")
				must(b, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
			})
		})
	}
}

func benchmark(b *testing.B, dir string, forget func()) {
	const directories, files = 200, 100
	for i := range directories {
		sub := fmt.Sprintf("%s/%d", dir, i)
		must(b, os.Mkdir(sub, 0o755))
		for j := range files {
			must(b, os.WriteFile(fmt.Sprintf("%s/%d", sub, j), make([]byte, 100*j), 0o644))
		}
	}
	var before, after syscall.Rusage
	var spent time.Duration
	for b.Loop() {
		b.StopTimer()
		forget()
		must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &before))
		b.StartTimer()
		if _, err := New(Options{}).Discover(b.Context(), writer.Scope{Paths: []string{dir}}); err != nil {
			b.Fatal(err)
		}
		must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &after))
		spent += time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	}
	per := 1 / float64(b.N) / directories / files
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())*per, "ns/file")
	b.ReportMetric(float64(spent.Nanoseconds())*per, "cpu-ns/file")
}
