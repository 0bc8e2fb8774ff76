package repository

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

const password = "correct horse"

// create makes a repository and opens it as host. To make a key of a password
// takes a second or more under the race detector, and Create does it twice: all
// but the first are copies.
func create(t testing.TB, path, host string) *Repository {
	t.Helper()
	o := Options{Identity: Identity{Host: host, User: "root"}}
	made.mu.Lock()
	defer made.mu.Unlock()
	empty := made.empty[host]
	if empty == nil {
		must(t, Create(t.Context(), path, password, o))
		empty = fstest.MapFS{}
		must(t, filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(name)
			rel, _ := filepath.Rel(path, name)
			empty[rel] = &fstest.MapFile{Data: b, Mode: 0o600}
			return err
		}))
		made.empty[host] = empty
	} else {
		must(t, os.CopyFS(path, empty))
	}
	return open(t, path, o)
}

// made are empty repositories by host.
var made = struct {
	mu    sync.Mutex
	empty map[string]fstest.MapFS
}{empty: map[string]fstest.MapFS{}}

func open(t testing.TB, path string, o Options) *Repository {
	t.Helper()
	r, err := Open(t.Context(), path, password, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// A take is one backup of one directory, made without the rest of the program.
type take struct {
	volume     string
	instant    time.Time
	snapshot   bool // not read live
	opened     func(context.Context, string, *tree.Content) (func() error, error)
	exceptions []string
	count      Counts
	tree       Tree
	backup     Backup
}

// store stores dir under the live path "/live" and records it as the backup id.
func (k *take) store(t testing.TB, r *Repository, dir, id string) {
	t.Helper()
	ctx := t.Context()
	if k.volume == "" {
		k.volume = "volume"
	}
	if k.instant.IsZero() {
		k.instant = time.Now()
	}
	previous, err := r.Previous(ctx, "/live")
	if err != nil {
		t.Fatal(err)
	}
	var p Progress
	w, err := r.Begin(ctx, &p)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(ctx)
	told := make(chan string, 1000)
	k.tree, err = w.Store(ctx, tree.Source{Path: "/live", Root: dir, Volume: k.volume}, StoreOptions{
		Instant: k.instant, Previous: previous, Live: func(string) bool { return !k.snapshot }, Opened: k.opened,
		Exception: func(path string, err error) { told <- path + ": " + string(problem.CodeOf(err)) },
	})
	close(told)
	for e := range told {
		k.exceptions = append(k.exceptions, e)
	}
	if err != nil {
		t.Fatal(err)
	}
	k.backup = Backup{ID: id, Started: r.clock.now(), Ended: r.clock.now(), Instant: k.instant, Trees: []Tree{k.tree}}
	if err := w.Record(ctx, &k.backup); err != nil {
		t.Fatal(err)
	}
	k.count = p.Total()
}

// old makes everything below dir older than the granule, so that the next
// backup may reuse it: nothing can set a ctime, so the instant is set instead.
func old() time.Time { return time.Now().Add(granule + time.Second) }

// write makes a file with the directories that lead to it.
func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// modified sets the time of a file, as touch does; its ctime is now.
func modified(t testing.TB, path string, at time.Time) {
	t.Helper()
	ts := []syscall.Timespec{syscall.NsecToTimespec(at.UnixNano()), syscall.NsecToTimespec(at.UnixNano())}
	if err := syscall.UtimesNano(path, ts); err != nil {
		t.Fatal(err)
	}
}

// wantCode fails the test unless err has the code; the empty one is no error.
func wantCode(t testing.TB, what string, err error, code problem.Code) {
	t.Helper()
	if got := problem.CodeOf(err); got != code {
		t.Errorf("%s: code %q, want %q (%v)", what, got, code, err)
	}
}

func must(t interface {
	Helper()
	Fatal(args ...any)
}, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// onTmpfs is a directory in memory, for very many files.
func onTmpfs(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "stillpoint-test-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// list returns the records of a directory.
func list(t testing.TB, r *Repository, dir *Record) []Record {
	t.Helper()
	l, err := r.Listing(t.Context(), dir)
	must(t, err)
	defer l.Close()
	var all []Record
	for {
		rec, err := l.Next()
		if err == io.EOF {
			return all
		}
		must(t, err)
		all = append(all, rec)
	}
}

// contentOf reads a file of a backup.
func contentOf(t testing.TB, r *Repository, rec *Record) string {
	t.Helper()
	o, err := r.Open(t.Context(), rec)
	must(t, err)
	defer o.Close()
	b, err := io.ReadAll(o)
	must(t, err)
	return string(b)
}
