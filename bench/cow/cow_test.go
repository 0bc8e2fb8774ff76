// Package cow_test measures the copy-on-write provider, as root on scratch
// volumes:
//
//	go test -run '^$' -bench . -benchtime 20x ./bench/cow
//
// Each benchmark gives its own units; bench/README.md says what they mean.
package cow_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"stillpoint/internal/agent"
	"stillpoint/internal/cachefile"
	"stillpoint/internal/guard"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow"
	"stillpoint/internal/volume"
)

func TestMain(m *testing.M) {
	guard.Main()
	agent.Main(func() snapshot.Provider { return cow.New(host, cow.Options{}) })
	os.Exit(m.Run())
}

func host(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }

// A rig is a volume with its provider.
type rig struct {
	*testing.B
	dir string
	v   volume.Volume
	n   int
}

// each runs a benchmark on both file systems.
func each(b *testing.B, size int64, run func(r *rig)) {
	for _, fs := range []string{"ext4", "xfs"} {
		b.Run(fs, func(b *testing.B) {
			v := scratch.New(b, fs, size)
			found, _ := scratch.Find(b, v.Dir)
			run(&rig{B: b, dir: v.Dir, v: found})
		})
	}
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// prepare prepares a set of everything.
func (r *rig) prepare() snapshot.Pending {
	r.Helper()
	r.n++
	p := cow.New(host, cow.Options{Cache: cachefile.Rules{Maximum: cachefile.Bytes(1 << 30)}})
	pending, err := p.Prepare(context.Background(), "bench"+strconv.Itoa(r.n), []snapshot.Target{{Volume: r.v, Paths: []string{"."}}})
	r.must(err)
	return pending
}

// commit takes a prepared set.
func (r *rig) commit(pending snapshot.Pending) snapshot.Snapshot {
	r.Helper()
	ctx := context.Background()
	r.must(pending.Hold(ctx))
	snaps, err := pending.Commit(ctx)
	r.must(pending.Resume(ctx))
	r.must(err)
	return snaps[0]
}

func (r *rig) release(s snapshot.Snapshot) { r.must(s.Release(context.Background())) }

// files makes n small files, 100 in each directory.
func (r *rig) files(n int) {
	r.Helper()
	for i := range n {
		dir := filepath.Join(r.dir, "tree", strconv.Itoa(i/100))
		if i%100 == 0 {
			r.must(os.MkdirAll(dir, 0o755))
		}
		r.must(os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), []byte("content"), 0o644))
	}
}

func median(ds []time.Duration) float64 {
	slices.Sort(ds)
	return float64(ds[len(ds)/2]) / float64(time.Millisecond)
}

// BenchmarkInstant is how long it takes to index so many files, and for how
// long writers wait at the instant.
func BenchmarkInstant(b *testing.B) {
	counts := []int{1000, 100_000}
	if os.Getenv("STILLPOINT_BENCH_MILLION") != "" {
		counts = append(counts, 1_000_000)
	}
	for _, n := range counts {
		b.Run(fmt.Sprint("files=", n), func(b *testing.B) {
			each(b, max(400<<20, int64(n)*9<<10), func(r *rig) {
				r.files(n)
				var index, whole, held []time.Duration
				for r.Loop() {
					began := time.Now()
					pending := r.prepare()
					index = append(index, time.Since(began))
					began = time.Now()
					s := r.commit(pending)
					whole = append(whole, time.Since(began))
					held = append(held, s.Parts()[0].Held)
					r.release(s)
				}
				r.ReportMetric(median(index), "prepare-ms")
				r.ReportMetric(median(whole), "hold-to-resume-ms")
				r.ReportMetric(median(held), "writers-wait-ms")
				r.ReportMetric(float64(slices.Max(held))/1e6, "longest-wait-ms")
			})
		})
	}
}

const fileSize = 64 << 20

// BenchmarkAccess is what one cached 4 KiB access costs while there is no
// filter, an idle one, a snapshot that has saved the file, and one that has not.
func BenchmarkAccess(b *testing.B) {
	each(b, 600<<20, func(r *rig) {
		path := filepath.Join(r.dir, "file")
		content := make([]byte, fileSize)
		r.must(os.WriteFile(path, content, 0o644))
		states := []struct {
			name string
			make func() (*os.File, func())
		}{
			{"none", func() (*os.File, func()) { f := r.open(path); return f, func() {} }},
			{"idle", func() (*os.File, func()) {
				pending := r.prepare()
				f := r.open(path)
				return f, func() { r.must(pending.Abort(context.Background())) }
			}},
			{"saved", func() (*os.File, func()) {
				pending := r.prepare()
				f := r.open(path)
				s := r.commit(pending)
				for at := int64(0); at < fileSize; at += 1 << 20 { // makes it popular, and so saved whole
					_, err := f.WriteAt(content[:1<<20], at)
					r.must(err)
				}
				time.Sleep(time.Second)
				return f, func() { r.release(s) }
			}},
			{"unsaved", func() (*os.File, func()) {
				pending := r.prepare()
				f := r.open(path)
				s := r.commit(pending)
				return f, func() { r.release(s) }
			}},
		}
		for _, state := range states {
			for _, kind := range []string{"write", "read"} {
				r.Run(kind+"/"+state.name, func(b *testing.B) {
					f, end := state.make()
					defer func() { f.Close(); end() }()
					page := make([]byte, 4096)
					at := rand.Perm(fileSize / 4096)
					for i := 0; b.Loop(); i++ {
						offset := int64(at[i%len(at)]) * 4096
						var err error
						if kind == "read" {
							_, err = f.ReadAt(page, offset)
						} else {
							_, err = f.WriteAt(page, offset)
						}
						if err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	})
}

func (r *rig) open(path string) *os.File {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	r.must(err)
	return f
}

// BenchmarkReading is how quickly a tree is read through a snapshot, as a share
// of how quickly the live one is: one large file, and small ones.
func BenchmarkReading(b *testing.B) {
	each(b, 1<<30, func(r *rig) {
		large := filepath.Join(r.dir, "large")
		r.must(os.Mkdir(large, 0o755))
		r.must(os.WriteFile(filepath.Join(large, "file"), make([]byte, 300<<20), 0o644))
		r.files(20_000)
		for _, what := range []string{"large", "tree"} {
			r.Run(what, func(b *testing.B) {
				var live, shown time.Duration
				for b.Loop() {
					forget(b)
					live += readAll(b, filepath.Join(r.dir, what))
					s := r.commit(r.prepare())
					root := s.Root()
					forget(b)
					shown += readAll(b, filepath.Join(root, what))
					if err := s.Err(); err != nil {
						b.Fatal(err)
					}
					r.release(s)
				}
				b.ReportMetric(float64(live)/float64(shown), "share-of-live")
			})
		}
	})
}

// forget lets the kernel forget all files.
func forget(b *testing.B) {
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0); err != nil {
		b.Fatal(err)
	}
}

func readAll(b *testing.B, dir string) time.Duration {
	began := time.Now()
	buf := make([]byte, 1<<20)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

// BenchmarkCache is how many bytes of cache a changed byte costs: of one file
// written anew from beginning to end, and in random pieces of 8 KiB.
func BenchmarkCache(b *testing.B) {
	each(b, 600<<20, func(r *rig) {
		path := filepath.Join(r.dir, "file")
		r.must(os.WriteFile(path, make([]byte, fileSize), 0o644))
		for _, pattern := range []string{"sequential", "random"} {
			r.Run(pattern, func(b *testing.B) {
				var changed, used int64
				for b.Loop() {
					pending := r.prepare()
					f := r.open(path)
					s := r.commit(pending)
					if pattern == "sequential" {
						for at := int64(0); at < fileSize; at += 128 << 10 {
							_, err := f.WriteAt(make([]byte, 128<<10), at)
							r.must(err)
						}
						changed += fileSize
					} else {
						pages := map[int64]bool{}
						for range 500 {
							at := rand.Int64N(fileSize/8192) * 8192
							_, err := f.WriteAt(make([]byte, 8192), at)
							r.must(err)
							pages[at] = true
						}
						changed += int64(len(pages)) * 8192
					}
					r.must(s.Err())
					used += s.(interface{ Cached() int64 }).Cached()
					f.Close()
					r.release(s)
				}
				b.ReportMetric(float64(used)/float64(changed), "cached/changed")
			})
		}
	})
}
