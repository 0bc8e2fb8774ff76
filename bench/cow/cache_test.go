//go:build bench

package cow_test

import (
	"math/rand/v2"
	"os"
	"time"

	"stillpoint/internal/snapshot"
)

const changedSize = 64 << 20

// cacheUse measures how many bytes of cache the change of a file takes: written
// from the beginning to the end, in random pieces, and in so many of these that
// the file is saved whole.
func cacheUse(r *rig) {
	path := r.file("file", changedSize)
	patterns := []struct {
		name  string
		whole bool
		write func(f *os.File) (changed int64)
	}{
		{"sequential", false, r.sequential},
		{"random 8 KiB", false, func(f *os.File) int64 { return r.random(f, 1000) }},
		{"random 8 KiB, saved whole", true, func(f *os.File) int64 { return r.random(f, 4000) }},
	}
	r.eachRound(func() {
		for _, p := range patterns {
			m := measure{name: "cache against what is changed, " + p.name, unit: "MiB"}
			pending := r.prepare(".")
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			r.must(err)
			r.held(pending, func(s snapshot.Snapshot) {
				r.note(m, without, float64(p.write(f))/(1<<20))
				for end := time.Now().Add(20 * time.Second); p.whole && cached(s) < changedSize; time.Sleep(10 * time.Millisecond) {
					if time.Now().After(end) {
						r.Fatalf("only %d bytes of the file are saved", cached(s))
					}
				}
				r.note(m, with, float64(cached(s))/(1<<20))
			})
			r.must(f.Close())
		}
	})
}

func (r *rig) sequential(f *os.File) int64 {
	b := randomBytes(128 << 10)
	for at := int64(0); at < changedSize; at += int64(len(b)) {
		_, err := f.WriteAt(b, at)
		r.must(err)
	}
	return changedSize
}

// random returns how many bytes it changed at least once.
func (r *rig) random(f *os.File, times int) int64 {
	const size = 8192
	b, where := randomBytes(size), map[int64]bool{}
	for range times {
		at := rand.Int64N(changedSize/size) * size
		_, err := f.WriteAt(b, at)
		r.must(err)
		where[at] = true
	}
	return int64(len(where)) * size
}
