package repository

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/tree"
)

// A process is one run that stores dir, in a repository opened on its own.
type process struct {
	t *testing.T
	r *Repository
	w *Writer
	b Backup
}

func newProcess(t *testing.T, path, id string) *process {
	t.Helper()
	r := open(t, path, Options{Identity: Identity{Host: "host", User: "root"}})
	w, err := r.Begin(t.Context(), nil)
	must(t, err)
	return &process{t, r, w, Backup{ID: id, Started: time.Now(), Ended: time.Now(), Instant: time.Now()}}
}

func (p *process) store(dir string) Tree {
	p.t.Helper()
	tr, err := p.w.Store(p.t.Context(), tree.Source{Path: "/live", Root: dir, Volume: "v"}, StoreOptions{Instant: time.Now(), Live: func(string) bool { return true },
		Exception: func(path string, err error) { p.t.Errorf("%s: %v", path, err) }})
	must(p.t, err)
	return tr
}

func (p *process) checkpoint(dir string) {
	p.t.Helper()
	_, err := p.w.Checkpoint(p.t.Context(), p.b, p.store(dir), nil)
	must(p.t, err)
}

func (p *process) record(dir string) {
	p.t.Helper()
	p.b.Trees = []Tree{p.store(dir)}
	must(p.t, p.w.Record(p.t.Context(), &p.b))
	p.close()
}

func (p *process) close() { must(p.t, p.w.Close(context.Background())) }

// kept are the IDs of the checkpoints there are.
func kept(t *testing.T, r *Repository) (ids []string) {
	t.Helper()
	bs, err := r.checkpoints(t.Context())
	must(t, err)
	for _, b := range bs {
		ids = append(ids, b.ID)
	}
	slices.Sort(ids)
	return ids
}

// TestCheckpointsOfOthers: a backup leaves the checkpoints of a run that goes on
// beside it, and removes its own and those of runs before it.
func TestCheckpointsOfOthers(t *testing.T) {
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "repo")
	write(t, dir+"/x", "x")
	r := create(t, path, "host")
	died := newProcess(t, path, "died")
	died.checkpoint(dir)
	died.close()
	one, two := newProcess(t, path, "one"), newProcess(t, path, "two")
	one.checkpoint(dir)
	two.checkpoint(dir)
	if got := kept(t, r); !slices.Equal(got, []string{"died", "one", "two"}) {
		t.Fatalf("checkpoints %v", got)
	}
	one.record(dir)
	if got := kept(t, r); !slices.Equal(got, []string{"two"}) {
		t.Errorf("checkpoints %v", got)
	}
	two.close() // dies
	newProcess(t, path, "three").record(dir)
	if got := kept(t, r); len(got) > 0 {
		t.Errorf("checkpoints %v", got)
	}
}

// TestRecordedTogether: backups that are recorded at the same moment are all
// there, always in the same order, and the latest is the one that began last.
func TestRecordedTogether(t *testing.T) {
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "repo")
	write(t, dir+"/x", "x")
	r := create(t, path, "host")
	var ps []*process
	for _, id := range []string{"one", "two", "three"} {
		p := newProcess(t, path, id)
		p.b.Trees = []Tree{p.store(dir)}
		p.checkpoint(dir)
		ps = append(ps, p)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(ps))
	for i, p := range ps {
		wg.Go(func() { errs[i] = p.w.Record(t.Context(), &p.b) })
	}
	wg.Wait()
	for i, p := range ps {
		must(t, errs[i])
		p.close()
	}
	orders := map[int64]int{}
	for range 3 {
		bs, err := r.Backups(t.Context())
		must(t, err)
		if len(bs) != 3 {
			t.Fatalf("%d backups", len(bs))
		}
		for i, b := range bs {
			orders[b.order]++
			if i > 0 && b.order == bs[i-1].order && b.Started.After(bs[i-1].Started) {
				t.Error("of two in the same place the older is first")
			}
		}
	}
	if got := kept(t, r); len(got) > 0 {
		t.Errorf("checkpoints %v", got)
	}
	t.Log("places:", orders)
}

// TestVerifyCounts: what is verified is what was stored, by kinds, in each of
// the backups, however much they share.
func TestVerifyCounts(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/x", "a/y", "b/c/x", "b/empty1", "b/empty2"} {
		content := name
		if filepath.Base(name)[0] == 'e' {
			content = ""
		}
		write(t, filepath.Join(dir, name), content)
	}
	must(t, syscall.Link(dir+"/a/x", dir+"/b/hard"))
	must(t, syscall.Symlink("x", dir+"/a/link"))
	must(t, syscall.Mkfifo(dir+"/b/c/fifo", 0o600))
	r := create(t, filepath.Join(t.TempDir(), "repo"), "host")
	var want Counts
	for _, id := range []string{"one", "two", "three"} {
		var k take
		k.store(t, r, dir, id)
		want = want.Plus(k.count)
		write(t, filepath.Join(dir, "a/more"+id), id)
	}
	bs, err := r.Backups(t.Context())
	must(t, err)
	var files, bytes int64
	for _, b := range bs {
		files, bytes = files+b.Files, bytes+b.Bytes
	}
	for _, readData := range []bool{false, true} {
		var p VerifyProgress
		must(t, r.Verify(t.Context(), bs, VerifyOptions{ReadData: readData, Progress: &p, Damage: func(path string, err error) { t.Error(path, err) }}))
		if p.Backups.Load() != 3 || p.Files.Load() != want.Files || p.Dirs.Load() != want.Dirs || p.Others.Load() != want.Others {
			t.Errorf("verified %d backups, %d files, %d directories, %d others, %d bytes; stored %+v",
				p.Backups.Load(), p.Files.Load(), p.Dirs.Load(), p.Others.Load(), p.Bytes.Load(), want)
		}
		if files != p.Files.Load() || bytes != p.Bytes.Load() {
			t.Errorf("the records say %d files, %d bytes", files, bytes)
		}
	}
}
