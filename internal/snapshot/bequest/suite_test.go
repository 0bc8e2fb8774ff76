package bequest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"stillpoint/internal/guard"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/volume"
)

const storeVariable = "STILLPOINT_TEST_STORE"

func TestMain(m *testing.M) {
	guard.Main(guard.Duty{Name: "fake", Do: func(of string) {
		store, set, _ := strings.Cut(of, " ")
		Of(fake.New(store, fake.Options{})).Do(set)
	}})
	os.Exit(m.Run())
}

// The checks of processes that end, with a provider that leaves directories.
func TestGuarded(t *testing.T) {
	scratch.NeedRoot(t) // a guard locks its memory
	store := os.Getenv(storeVariable)
	child := store != ""
	if !child {
		store = t.TempDir()
	}
	h := snapshottest.Host{
		New: func(testing.TB) snapshot.Provider {
			return &guarded{fake.New(store, fake.Options{}), store}
		},
		Volumes: func(tb testing.TB, n int) (vs []snapshottest.Volume) {
			for range n {
				dir := tb.TempDir()
				vs = append(vs, snapshottest.Volume{Dir: dir, Volume: fake.Volume(dir)})
			}
			return vs
		},
		Refused: func(testing.TB) volume.Volume { return volume.Volume{} },
		State: func(tb testing.TB, _ []snapshottest.Volume) string {
			names, err := os.ReadDir(store)
			if err != nil {
				tb.Fatal(err)
			}
			return fmt.Sprint(names)
		},
		Env:     []string{storeVariable + "=" + store},
		Guarded: true,
	}
	if child {
		snapshottest.Run(t, h)
		return
	}
	for _, name := range []string{"killed", "exited", "guard", "stopped"} {
		t.Run(name, func(t *testing.T) { snapshottest.RunCheck(t, h, name) })
	}
}

// guarded is a provider whose sets have a guard.
type guarded struct {
	*fake.Provider
	store string
}

func (p *guarded) Prepare(ctx context.Context, id string, ts []snapshot.Target) (snapshot.Pending, error) {
	g, err := guard.Start()
	if err == nil {
		err = g.Bequeath("fake", p.store+" "+id)
	}
	if err != nil {
		return nil, err
	}
	s := &guardedSet{end: sync.OnceFunc(func() { g.Close() })}
	s.left.Store(int32(len(ts)))
	s.Pending, err = p.Provider.Prepare(ctx, id, ts)
	return s, err
}

type guardedSet struct {
	snapshot.Pending
	left atomic.Int32
	end  func()
}

func (s *guardedSet) Commit(ctx context.Context) (all []snapshot.Snapshot, err error) {
	snaps, err := s.Pending.Commit(ctx)
	for _, one := range snaps {
		all = append(all, &guardedSnapshot{one, s})
	}
	return all, err
}

type guardedSnapshot struct {
	snapshot.Snapshot
	set *guardedSet
}

func (s *guardedSnapshot) Release(ctx context.Context) error {
	err := s.Snapshot.Release(ctx)
	if err == nil && s.set.left.Add(-1) == 0 {
		s.set.end()
	}
	return err
}
