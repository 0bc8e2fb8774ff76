package cow_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"stillpoint/internal/agent"
	"stillpoint/internal/backup"
	"stillpoint/internal/job"
	"stillpoint/internal/repository"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/cow"
)

// BenchmarkStoring is how quickly a first backup stores a tree of a snapshot, as
// a share of how quickly it stores the live one, by turns: one large file, and
// small ones; with nothing in memory, and with everything. The storing alone, and
// the whole with the taking of the snapshot.
func BenchmarkStoring(b *testing.B) {
	v := scratch.New(b, "ext4", 2<<30)
	r := &rig{B: b, dir: v.Dir}
	r.random("large/file", 500<<20)
	for i := range 20_000 {
		r.random(fmt.Sprintf("small/%d/%d", i/100, i), 1000+rand.IntN(7000))
	}
	for _, what := range []string{"small", "large"} {
		for _, how := range []string{"cold", "warm"} {
			b.Run(what+"/"+how, func(b *testing.B) {
				var storing, whole []float64
				var live []time.Duration
				for b.Loop() {
					store := func(provider string) (time.Duration, time.Duration) {
						if how == "cold" {
							forget(b)
						} else {
							readAll(b, filepath.Join(v.Dir, what))
						}
						return r.backup(provider, filepath.Join(v.Dir, what))
					}
					liveStoring, liveWhole := store(backup.None)
					shownStoring, shownWhole := store(cow.Name)
					storing = append(storing, float64(liveStoring)/float64(shownStoring))
					whole = append(whole, float64(liveWhole)/float64(shownWhole))
					live = append(live, liveWhole)
				}
				b.ReportMetric(middle(storing), "storing-share-of-live")
				b.ReportMetric(middle(whole), "whole-share-of-live")
				b.ReportMetric(median(live), "live-ms")
			})
		}
	}
}

func middle(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// random writes a file that cannot be compressed.
func (r *rig) random(name string, size int) {
	r.Helper()
	path := filepath.Join(r.dir, name)
	r.must(os.MkdirAll(filepath.Dir(path), 0o755))
	content := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(size)})
	_, _ = source.Read(content) // never fails
	r.must(os.WriteFile(path, content, 0o644))
}

// backup takes a first backup, in an agent of its own where there is a snapshot,
// and returns how long the storing took, and the whole.
func (r *rig) backup(provider, path string) (storing, whole time.Duration) {
	r.Helper()
	dir, err := os.MkdirTemp("", "stillpoint-bench")
	r.must(err)
	defer func() { r.must(os.RemoveAll(dir)) }()
	r.n++
	id := repository.Options{Identity: repository.Identity{Host: "host" + strconv.Itoa(r.n), User: "root"}}
	r.must(repository.Create(context.Background(), dir+"/repo", "bench", id))
	p := &agent.Provider{Local: cow.New(host, cow.Options{}), Socket: dir + "/none"}
	e := backup.Engine{Providers: []snapshot.Provider{p}, JobDir: dir + "/jobs", Version: "bench"}
	open := func(ctx context.Context) (*repository.Repository, error) {
		return repository.Open(ctx, dir+"/repo", "bench", id)
	}
	began := time.Now()
	report, err := e.Backup(context.Background(), open, backup.Options{Paths: []string{path}, Provider: provider})
	whole = time.Since(began)
	r.must(err)
	if report.Status != job.Complete {
		r.Fatalf("%+v", report)
	}
	return time.Duration(report.Volumes[0].Took), whole
}
