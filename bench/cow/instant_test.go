//go:build bench

package cow_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"stillpoint/internal/snapshot"
)

// instants are taken in a row in each round, of small trees; it is in the
// longest of these waits that a server would notice.
const instants = 5

// instant measures how long it takes to index so many files, and for how long
// writers wait at the instant. A tree lies beside the others and is taken alone.
func instant(r *rig) {
	for _, n := range r.files {
		name := "tree" + strconv.Itoa(n)
		r.tree(name, n, 100)
		r.file(name+"/writer", writerPages*page)
		r.walk(name) // brings all into memory
	}
	r.eachRound(func() {
		for _, n := range r.files {
			r.instantOf("tree"+strconv.Itoa(n), n)
		}
	})
}

func (r *rig) instantOf(name string, n int) {
	r.Helper()
	named := func(what string) string { return fmt.Sprintf("instant, %d files: %s", n, what) }
	index := measure{name: named("index, against a walk with lstat"), unit: "ms"}
	hold := measure{name: named("hold, until writers go on"), unit: "ms", goal: goal{most: 50}}
	call := measure{name: named("from the call of hold until all go on"), unit: "ms"}
	wait := measure{name: named("longest wait of a writer"), unit: "ms"}

	times := instants
	if n > 100_000 {
		times = 1
	}
	var indexed, holds, calls []float64
	r.inTurn(func() {
		r.note(index, without, milliseconds(r.walk(name)))
		r.note(wait, without, r.longestWait(r.path(name+"/writer"), func() { time.Sleep(time.Second) }))
	}, func() {
		r.watched(func() {
			waited := r.longestWait(r.path(name+"/writer"), func() {
				for range times {
					began := time.Now()
					pending := r.prepare(name)
					indexed = append(indexed, milliseconds(time.Since(began)))
					began = time.Now()
					r.held(pending, func(s snapshot.Snapshot) {
						calls = append(calls, milliseconds(time.Since(began)))
						holds = append(holds, milliseconds(s.Parts()[0].Held))
					})
				}
			})
			r.note(index, with, median(indexed))
			r.note(hold, with, median(holds))
			r.note(call, with, median(calls))
			r.note(wait, with, waited)
		})
	})
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// tree makes a directory with n files of so many bytes and less, 100 in each
// directory below it.
func (r *rig) tree(name string, n, size int) {
	r.Helper()
	began := time.Now()
	content := randomBytes(size + n)
	errs := make([]error, 2)
	var wait sync.WaitGroup
	for worker := range errs {
		wait.Go(func() {
			for dir := worker; dir*100 < n && errs[worker] == nil; dir += len(errs) {
				errs[worker] = hundred(filepath.Join(r.path(name), strconv.Itoa(dir)), content[dir*100:], size, min(100, n-dir*100))
			}
		})
	}
	wait.Wait()
	for _, err := range errs {
		r.must(err)
	}
	r.sync()
	fmt.Fprintf(os.Stderr, "%s: %d files made in %s\n", r.fs, n, time.Since(began).Round(time.Millisecond))
}

// hundred makes n files of different contents in one directory.
func hundred(dir string, content []byte, size, n int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := range n {
		length := size - size*i/(2*n) // from half to all of it
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), content[i:i+length], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// walk asks for the attributes of everything below a directory.
func (r *rig) walk(name string) time.Duration {
	r.Helper()
	began := time.Now()
	r.must(filepath.WalkDir(r.path(name), func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info()
		}
		return err
	}))
	return time.Since(began)
}
