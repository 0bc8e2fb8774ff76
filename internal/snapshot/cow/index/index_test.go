package index

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"stillpoint/internal/sys/inode"
)

// nobody has a file open for writing.
func nobody(testing.TB) []uint64 { return nil }

func build(t testing.TB, v *volume, o Options, paths ...string) *Builder {
	t.Helper()
	b, err := Build(t.Context(), v.root, paths, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func keeper(t testing.TB) *inode.Keeper {
	t.Helper()
	k, err := inode.NewKeeper(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// finish takes the index of now and compares it with the frozen volume.
func finish(t testing.TB, v *volume, b *Builder, also func(testing.TB) []uint64, paths ...string) *Index {
	t.Helper()
	var x *Index
	var late *TooLateError
	numbers := also(t)
	v.frozen(t, func() {
		start := time.Now()
		var err error
		x, err = b.Finish(numbers)
		if errors.As(err, &late) {
			t.Logf("%v, after %v", err, time.Since(start))
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		took := time.Since(start)
		want := v.walk(t, paths)
		check(t, flatten(t, x), want)
		t.Logf("%d files, Finish took %v", len(want), took)
	})
	if x == nil && late != nil {
		if err := b.Settle(t.Context(), 200); err != nil {
			t.Fatal(err)
		}
		return finish(t, v, b, also, paths...)
	}
	if x == nil {
		t.FailNow()
	}
	if err := x.Thawed(); err != nil {
		t.Error(err)
	}
	got := flatten(t, x)
	reachable := map[uint64]bool{}
	for _, r := range got {
		reachable[r.Number] = true
	}
	if x.Len() != len(reachable) {
		t.Errorf("Len() = %d, %d inodes can be reached", x.Len(), len(reachable))
	}
	return x
}

// Everything that a file can be is in the index of a still volume.
func TestStill(t *testing.T) {
	everyFS(t, func(t *testing.T, v *volume) {
		s := startStorm(t, v, 1, 4)
		time.Sleep(500 * time.Millisecond)
		s.stop()
		for _, paths := range [][]string{{"."}, stormPaths, {"not-there", "sel/not-there"}, {"deep/lead"}} {
			b := build(t, v, Options{Keeper: keeper(t)}, paths...)
			x := finish(t, v, b, nobody, paths...)
			if err := x.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// Whatever happens while the index is built, it is what the volume is at the
// instant.
func TestStorm(t *testing.T) {
	everyFS(t, func(t *testing.T, v *volume) {
		s := startStorm(t, v, uint64(time.Now().UnixNano()), 4)
		time.Sleep(200 * time.Millisecond)
		for i := range 10 {
			o := Options{Parallel: 1 + i%4}
			if i%2 == 0 {
				o.Keeper = keeper(t)
			}
			paths := stormPaths
			if i%3 == 0 {
				paths = []string{"."}
			}
			instant(t, v, s, o, paths...)
		}
		s.stop()
	})
}

// instant takes an index as the provider does.
func instant(t testing.TB, v *volume, s *storm, o Options, paths ...string) {
	t.Helper()
	b := build(t, v, o, paths...)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.Settle(ctx, 200); err != nil {
		t.Fatal(err)
	}
	if err := b.Watchful(); err != nil {
		t.Fatal(err)
	}
	x := finish(t, v, b, s.writers, paths...)
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

var rounds = flag.Int("rounds", 10, "rounds of TestManyStorms on each file system")

// Many small storms reach more of the moments at which something can happen.
func TestManyStorms(t *testing.T) {
	everyFS(t, func(t *testing.T, v *volume) {
		seed := uint64(time.Now().UnixNano())
		for i := range *rounds {
			ok := t.Run(fmt.Sprintf("seed %d", seed+uint64(i)), func(t *testing.T) {
				s := startStorm(t, v, seed+uint64(i), 3)
				time.Sleep(time.Duration(i%20) * time.Millisecond)
				o := Options{Parallel: 1 + i%3}
				if i%2 == 0 {
					o.Keeper = keeper(t)
				}
				instant(t, v, s, o, stormPaths...)
				s.stop()
				if i%20 == 19 {
					clean(t, v)
				}
			})
			if !ok {
				return
			}
		}
	})
}

// clean removes everything.
func clean(t testing.TB, v *volume) {
	t.Helper()
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(v.path(e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}
