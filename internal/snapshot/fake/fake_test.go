package fake_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/volume"
)

const storeVariable = "STILLPOINT_FAKE_STORE"

func TestSuite(t *testing.T) {
	store := os.Getenv(storeVariable) // in a child of this test
	if store == "" {
		store = t.TempDir()
	}
	gate := &fake.Gate{}
	snapshottest.Run(t, snapshottest.Host{
		New: func(testing.TB) snapshot.Provider { return fake.New(store, fake.Options{Gate: gate}) },
		Volumes: func(tb testing.TB, n int) []snapshottest.Volume {
			var vs []snapshottest.Volume
			for i := range n {
				dir := filepath.Join(tb.TempDir(), fmt.Sprint("volume", i))
				if err := os.Mkdir(dir, 0o755); err != nil {
					tb.Fatal(err)
				}
				vs = append(vs, snapshottest.Volume{Dir: dir, Volume: fake.Volume(dir)})
			}
			return vs
		},
		Refused: func(testing.TB) volume.Volume {
			return volume.Volume{ID: "far", Kind: volume.Network, FSType: "nfs", Mounts: []volume.Mount{{Point: "/", Root: "/"}}}
		},
		State: func(tb testing.TB, _ []snapshottest.Volume) string {
			names, err := os.ReadDir(store)
			if err != nil {
				tb.Fatal(err)
			}
			return fmt.Sprint(names)
		},
		LookAlike: func(tb testing.TB, _ snapshottest.Volume, id string) func() string { return lookAlike(tb, store, id) },
		Write:     gate.Write,
		Env:       []string{storeVariable + "=" + store},
		Known:     map[string]string{"read-only": "the copies are plain directories"},
	})
}

// lookAlike makes a directory that could be that of a set, or puts a file into
// the one that there is.
func lookAlike(tb testing.TB, store, id string) func() string {
	dir := filepath.Join(store, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	_, err := os.Stat(dir + ".set")
	if err == nil { // of a set that died: take its directory's place
		if err := os.Rename(dir, dir+"x"); err != nil {
			tb.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	file := filepath.Join(dir, "mine")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir); os.RemoveAll(dir + "x"); os.RemoveAll(dir + ".set") })
	return func() string {
		if b, err := os.ReadFile(file); err != nil || string(b) != "mine" {
			return fmt.Sprintf("%s: %q, %v", file, b, err)
		}
		return ""
	}
}

func prepare(t *testing.T, p *fake.Provider, dirs ...string) snapshot.Pending {
	t.Helper()
	var ts []snapshot.Target
	for _, d := range dirs {
		ts = append(ts, snapshot.Target{Volume: fake.Volume(d), Paths: []string{"."}})
	}
	pending, err := p.Prepare(t.Context(), "set1", ts)
	if err != nil {
		t.Fatal(err)
	}
	return pending
}

func TestHeld(t *testing.T) {
	p := fake.New(t.TempDir(), fake.Options{Separate: true})
	a, b := t.TempDir(), t.TempDir()
	pending := prepare(t, p, a, b)
	held := func(want ...string) {
		t.Helper()
		if got := p.Held(); !slices.Equal(got, want) {
			t.Errorf("held: %q, want %q", got, want)
		}
	}
	held("set set1")
	if pending.Instants() != 2 {
		t.Errorf("%d instants", pending.Instants())
	}
	ctx := t.Context()
	if err := pending.Hold(ctx); err != nil {
		t.Fatal(err)
	}
	if err := pending.Hold(ctx); err == nil {
		t.Error("held twice")
	}
	held("hold set1", "set set1")
	snaps, err := pending.Commit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pending.Commit(ctx); err == nil {
		t.Error("committed twice")
	}
	if snaps[0].Parts()[0].Taken.Equal(snaps[1].Parts()[0].Taken) {
		t.Error("two instants are the same")
	}
	if err := pending.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	held("set set1", "snapshot set1/fake:"+a, "snapshot set1/fake:"+b)
	for _, s := range snaps {
		if err := s.Release(ctx); err != nil {
			t.Error(err)
		}
	}
	held()
}

func TestStep(t *testing.T) {
	bad := errors.New("bad")
	fail := ""
	p := fake.New(t.TempDir(), fake.Options{Step: func(ctx context.Context, step string) error {
		switch fail {
		case step:
			return bad
		case "hang in " + step:
			<-ctx.Done()
		}
		return nil
	}})
	pending := prepare(t, p, t.TempDir())
	fail = "commit"
	if _, err := pending.Commit(t.Context()); !errors.Is(err, bad) {
		t.Errorf("commit: %v", err)
	}
	fail = "hang in commit"
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := pending.Commit(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("commit: %v", err)
	}
	if err := pending.Abort(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLose(t *testing.T) {
	p := fake.New(t.TempDir(), fake.Options{})
	dir := t.TempDir()
	snaps, err := prepare(t, p, dir).Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer snaps[0].Release(t.Context())
	p.Lose("fake:"+volume.ID(dir), problem.Newf(problem.SnapshotLost, "", "told so"))
	if code := problem.CodeOf(snaps[0].Err()); code != problem.SnapshotLost {
		t.Errorf("code %q", code)
	}
	p.Lose("fake:"+volume.ID(dir), nil)
	if snaps[0].Err() == nil {
		t.Error("it is good again")
	}
}

func TestLive(t *testing.T) {
	v := volume.Volume{Mounts: []volume.Mount{{Point: "/srv/data", Root: "/a/b"}, {Point: "/mnt", Root: "/"}}}
	for rel, want := range map[string]string{".": "/mnt", "a/b": "/srv/data", "a/b/c": "/srv/data/c", "a/bc": "/mnt/a/bc"} {
		if got, ok := fake.Live(v, rel); got != want || !ok {
			t.Errorf("%s is at %q, %t; want %q", rel, got, ok, want)
		}
	}
}
