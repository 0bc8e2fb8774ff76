package repository

import (
	"context"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/snapshot"

	"stillpoint/internal/tree"
)

// checkpoint stores dir and leaves nothing but a checkpoint of it.
func checkpoint(t *testing.T, r *Repository, dir, id string) *Backup {
	t.Helper()
	w, err := r.Begin(t.Context(), nil)
	must(t, err)
	defer w.Close(t.Context())
	tr, err := w.Store(t.Context(), tree.Source{Path: "/live", Root: dir, Volume: "volume"}, StoreOptions{Instant: old(), Exception: func(p string, err error) { t.Error(p, err) }})
	must(t, err)
	b, err := w.Checkpoint(t.Context(), Backup{ID: id, Started: r.clock.now(), Ended: r.clock.now()}, tr, nil)
	must(t, err)
	return b
}

// all returns everything with our job tag: ids, checkpoints with a star.
func all(t *testing.T, r *Repository) (ids string) {
	t.Helper()
	bs, err := r.load(t.Context(), true)
	must(t, err)
	for _, b := range bs {
		ids += b.ID
		if b.Incomplete() {
			ids += "*"
		}
		ids += " "
	}
	return ids
}

// The clock is set back between two runs: the order, what is latest, what is
// reused and what is removed are as if it had not been.
func TestClockSetBack(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/src/file", "content")
	ahead := time.Duration(0)
	o := Options{Identity: Identity{Host: "host", User: "root"}, Now: func() time.Time { return time.Now().Add(ahead) }}
	must(t, Create(t.Context(), dir+"/repo", password, o))

	r := open(t, dir+"/repo", o)
	first := take{instant: old()}
	first.store(t, r, dir+"/src", "first")
	ahead = 48 * time.Hour
	checkpoint(t, r, dir+"/src", "stopped")
	ahead = -48 * time.Hour
	r = open(t, dir+"/repo", o)
	if got := all(t, r); got != "stopped* first " {
		t.Errorf("there are %s", got)
	}
	previous, err := r.Previous(t.Context(), "/live")
	must(t, err)
	if len(previous) != 2 || !previous[0].Incomplete || previous[1].Incomplete {
		t.Errorf("previous: %+v", previous)
	}
	var second take
	second.store(t, r, dir+"/src", "second")
	if second.count.ReadBytes != 0 {
		t.Errorf("read %d bytes of an unchanged file", second.count.ReadBytes)
	}
	for _, ahead = range []time.Duration{-48 * time.Hour, 0, 96 * time.Hour} {
		r = open(t, dir+"/repo", o)
		if got := all(t, r); got != "second first " {
			t.Errorf("clock %v: there are %s", ahead, got)
		}
	}
}

// A checkpoint is replaced by the next one, whatever the clock does meanwhile.
func TestCheckpointReplaced(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/src/file", "content")
	ahead := time.Duration(0)
	o := Options{Identity: Identity{Host: "host", User: "root"}, Now: func() time.Time { return time.Now().Add(ahead) }}
	must(t, Create(t.Context(), dir+"/repo", password, o))
	r := open(t, dir+"/repo", o)
	b := checkpoint(t, r, dir+"/src", "stopped")
	w, err := r.Begin(t.Context(), nil)
	must(t, err)
	defer w.Close(t.Context())
	for _, ahead = range []time.Duration{-time.Hour, time.Hour, -time.Hour, -2 * time.Hour} {
		b, err = w.Checkpoint(t.Context(), *b, b.Trees[0], b)
		must(t, err)
		if got := all(t, r); got != "stopped* " {
			t.Errorf("there are %s", got)
		}
	}
	must(t, w.Forget(t.Context(), b))
	if got := all(t, open(t, dir+"/repo", o)); got != "" {
		t.Errorf("there are %s", got)
	}
}

// What the stock program makes and deletes beside us: its snapshots are listed
// but not reused, its checkpoints are not ours to resume or delete, and a
// backup that it took a path from is known as such.
func TestBesideStockKopia(t *testing.T) {
	dir := t.TempDir()
	r := create(t, dir+"/repo", "host")
	write(t, dir+"/src/file", "content")
	first := take{instant: old()}
	first.store(t, r, dir+"/src", "first")
	root, err := first.backup.manifest(&first.tree)
	must(t, err)
	for _, incomplete := range []string{"", "canceled"} {
		m := *root
		m.Tags, m.IncompleteReason = nil, incomplete
		m.StartTime = m.StartTime.Add(time.Millisecond) // newer than ours
		must(t, repo.WriteSession(t.Context(), r.kopia, repo.WriteSessionOptions{}, func(ctx context.Context, w repo.RepositoryWriter) error {
			_, err := snapshot.SaveSnapshot(ctx, w, &m)
			return err
		}))
	}
	previous, err := r.Previous(t.Context(), "/live")
	must(t, err)
	if len(previous) != 1 || previous[0].Root.Volume == "" {
		t.Errorf("previous: %+v", previous)
	}
	second := take{}
	second.store(t, r, dir+"/src", "second")
	if second.count.ReadBytes != 0 {
		t.Errorf("read %d bytes", second.count.ReadBytes)
	}
	bs, err := r.load(t.Context(), true)
	must(t, err)
	stock, incomplete := 0, 0
	for _, b := range bs {
		if b.Provider == "kopia" {
			stock++
			if b.Incomplete() {
				incomplete++
			}
		}
	}
	if stock != 2 || incomplete != 1 {
		t.Errorf("of kopia's own %d are there, %d incomplete", stock, incomplete)
	}
	if bs, err := r.Backups(t.Context()); err != nil || len(bs) != 3 || bs[0].ID != "second" {
		t.Errorf("%v, %v", bs, err)
	}

	w, err := r.Begin(t.Context(), nil)
	must(t, err)
	other := first.tree
	other.Path = "/other"
	both := Backup{ID: "both", Trees: []Tree{first.tree, other}}
	must(t, w.Record(t.Context(), &both))
	must(t, w.kopia.DeleteManifest(t.Context(), both.manifests[0]))
	must(t, w.flush(t.Context()))
	must(t, w.Close(t.Context()))
	bs, err = r.Backups(t.Context())
	must(t, err)
	if bs[0].ID != "both" || bs[0].Lost != 1 || len(bs[0].Trees) != 1 || bs[1].Lost != 0 {
		t.Errorf("%+v", bs[0])
	}
	var damage []string
	must(t, r.Verify(t.Context(), bs, VerifyOptions{Damage: func(path string, err error) { damage = append(damage, path) }}))
	if len(damage) != 1 || damage[0] != "both" {
		t.Errorf("damage: %q", damage)
	}
}
