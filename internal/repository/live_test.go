package repository

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

const mib = 1 << 20

// live is a size that takes long enough to read that something can happen
// meanwhile.
var live = map[bool]int{false: 24 * mib, true: 4 * mib}[raced]

// A reading is a Store that something happens during.
type reading struct {
	t       *testing.T
	r       *Repository
	dir     string
	p       Progress
	sources []tree.Source
	live    func(volume string) bool

	mu         sync.Mutex
	exceptions map[string]problem.Code
	trees      []Tree
	err        error
}

func newReading(t *testing.T) *reading {
	dir := onTmpfs(t)
	must(t, os.Mkdir(dir+"/src", 0o755))
	return &reading{t: t, r: create(t, t.TempDir()+"/repo", "host"), dir: dir + "/src", live: func(string) bool { return true }, exceptions: map[string]problem.Code{},
		sources: []tree.Source{{Path: "/live", Root: dir + "/src", Volume: "v"}}}
}

// random makes a file of so many bytes that do not compress.
func (k *reading) random(name string, size int) string {
	k.t.Helper()
	b := make([]byte, size)
	fill := rand.NewChaCha8([32]byte{byte(size)})
	fill.Read(b)
	path := filepath.Join(k.dir, name)
	write(k.t, path, string(b))
	return path
}

// during does something each time that n more bytes were read, at most times
// times. The next Store waits for its end.
func (k *reading) during(n int64, times int, do func()) (wait func()) {
	ended, quit := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := int64(1); i <= int64(times); i++ {
			for k.p.Total().ReadBytes < i*n {
				select {
				case <-quit:
					return
				case <-time.After(100 * time.Microsecond):
				}
			}
			do()
		}
	}()
	return func() { close(quit); <-ended }
}

// store stores all sources; between is called after the first one.
func (k *reading) store(between ...func()) {
	k.t.Helper()
	w, err := k.r.Begin(k.t.Context(), &k.p)
	must(k.t, err)
	defer w.Close(k.t.Context())
	for i, src := range k.sources {
		var tr Tree
		tr, k.err = w.Store(k.t.Context(), src, StoreOptions{Instant: time.Now(), Live: k.live, Exception: func(path string, err error) {
			k.mu.Lock()
			defer k.mu.Unlock()
			if c, again := k.exceptions[path]; again {
				k.t.Errorf("%s: %s and %v", path, c, err)
			}
			k.exceptions[path] = problem.CodeOf(err)
		}})
		if k.err != nil {
			return
		}
		k.trees = append(k.trees, tr)
		if i == 0 && len(between) > 0 {
			between[0]()
		}
	}
	must(k.t, w.Record(k.t.Context(), &Backup{ID: "id", Trees: k.trees}))
	must(k.t, k.r.Verify(k.t.Context(), []Backup{{ID: "id", Trees: k.trees}}, VerifyOptions{ReadData: true, Damage: func(path string, err error) { k.t.Errorf("damaged: %s: %v", path, err) }}))
}

func (k *reading) wantExceptions(want map[string]problem.Code) {
	k.t.Helper()
	if len(k.exceptions) != len(want) {
		k.t.Errorf("exceptions %v, want %v", k.exceptions, want)
	}
	for p, c := range want {
		if k.exceptions[p] != c {
			k.t.Errorf("%s: exception %q, want %q", p, k.exceptions[p], c)
		}
	}
}

// names returns what the tree holds, and fails where a record is not a whole one.
func (k *reading) names(i int) string {
	k.t.Helper()
	var names []string
	for _, rec := range list(k.t, k.r, &k.trees[i].Root) {
		names = append(names, rec.Name)
		if rec.Object == "" || rec.Mode == 0 || rec.Inode == 0 || rec.Modified.Before(time.Unix(0, 0)) {
			k.t.Errorf("%q: %+v", rec.Name, rec)
		}
	}
	return strings.Join(names, " ")
}

func TestFileChangesOnce(t *testing.T) {
	k := newReading(t)
	path := k.random("file", live)
	wait := k.during(int64(live/4), 1, func() { poke(t, path, int64(live-1)) })
	k.store()
	wait()
	k.wantExceptions(nil)
	rec := list(t, k.r, &k.trees[0].Root)[0]
	want, err := os.ReadFile(path)
	must(t, err)
	if contentOf(t, k.r, &rec) != string(want) {
		t.Error("what is stored is not what the file was in the end")
	}
	if got := k.p.Total().ReadBytes; got != int64(2*live) {
		t.Errorf("read %d bytes, want two times %d", got, live)
	}
}

// poke changes one byte.
func poke(t *testing.T, path string, at int64) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{byte(time.Now().UnixNano())}, at); err != nil {
		t.Error(err)
	}
}

func TestFileNeverHoldsStill(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path string){
		"written": func(t *testing.T, path string) { poke(t, path, 5) },
		"grows": func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			defer f.Close()
			f.WriteString("one more line\n")
		},
		"shrinks": func(t *testing.T, path string) {
			i, err := os.Stat(path)
			must(t, err)
			must(t, os.Truncate(path, i.Size()-int64(live/200))) // never so short that a reading gets through
		},
		"replaced": func(t *testing.T, path string) {
			// In one quick step: the reading must not get through.
			must(t, unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, filepath.Dir(path)+".other", unix.RENAME_EXCHANGE))
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, single := range []bool{false, true} {
				k := newReading(t)
				path := k.random("file", live)
				if single {
					k.sources[0].Path, k.sources[0].Root = "/live/file", path
				} else {
					k.random("still", 1000)
				}
				b, err := os.ReadFile(path)
				must(t, err)
				write(t, filepath.Dir(path)+".other", string(b))
				wait := k.during(int64(live/16), 100, func() { change(t, path) })
				k.store()
				wait()
				if name == "shrinks" && (single || !strings.Contains(k.names(0), "file")) {
					// No reading came to its end: there is nothing to store.
					if single {
						wantCode(t, "store", k.err, problem.FileChanged)
					}
					continue
				}
				must(t, k.err)
				k.wantExceptions(map[string]problem.Code{"/live/file": problem.FileChanged})
				if !single && !strings.Contains(k.names(0), "file") {
					t.Errorf("stored: %q", k.names(0))
				}
			}
		})
	}
}

// A file that is gone when it is read a second time is not in the backup, and
// neither is what is gone before it is read at all.
func TestFileVanishes(t *testing.T) {
	k := newReading(t)
	path := k.random("read", live)
	k.random("listed", 10)
	k.random("still", 10)
	must(t, os.Mkdir(k.dir+"/dir", 0o755))
	must(t, os.Symlink("x", k.dir+"/link"))
	k.sources[0].Leave = func(path string, e *tree.Entry, _ string) string {
		switch e.Name {
		case "listed", "dir", "link":
			must(t, os.Remove(k.dir+"/"+e.Name))
		}
		return ""
	}
	wait := k.during(int64(live/4), 1, func() { must(t, os.Remove(path)) })
	k.store()
	wait()
	gone := problem.FileVanished
	k.wantExceptions(map[string]problem.Code{"/live/read": gone, "/live/listed": gone, "/live/dir": gone, "/live/link": gone})
	if got := k.names(0); got != "still" {
		t.Errorf("stored: %q", got)
	}
}

// In a snapshot nothing can change: if something does, it is none.
func TestFileChangesInSnapshot(t *testing.T) {
	k := newReading(t)
	k.live = nil
	path := k.random("sub/file", live)
	wait := k.during(int64(live/4), 1, func() { poke(t, path, 0) })
	k.store()
	wait()
	wantCode(t, "store", k.err, problem.SnapshotLost)
	if k.err != nil && !strings.Contains(k.err.Error(), "/live/sub/file") {
		t.Errorf("does not name the file: %v", k.err)
	}
}

// So it is where other parts of the same source are read live, and these may change.
func TestFileChangesInPart(t *testing.T) {
	for volume, code := range map[string]problem.Code{"snapshot": problem.SnapshotLost, "v": ""} {
		k := newReading(t)
		k.live = func(volume string) bool { return volume == "v" }
		must(t, os.Mkdir(k.dir+"/part", 0o755))
		in := filepath.Dir(k.dir) + "/snapshot"
		must(t, os.Mkdir(in, 0o755))
		k.sources[0].Grafts = []tree.Graft{{Path: "/live/part", Root: in, Volume: "snapshot"}}
		path := k.random(map[string]string{"snapshot": "../snapshot/file", "v": "file"}[volume], live)
		wait := k.during(int64(live/4), 1, func() { poke(t, path, 0) })
		k.store()
		wait()
		wantCode(t, volume, k.err, code)
	}
}

// A file with two names that changes between their readings: both names have
// what was read under them.
func TestHardLinkChangesBetween(t *testing.T) {
	k := newReading(t)
	one := k.random("one/name", 5*mib)
	must(t, os.Mkdir(k.dir+"/two", 0o755))
	must(t, os.Link(one, k.dir+"/two/name"))
	k.sources = []tree.Source{{Path: "/one", Root: k.dir + "/one", Volume: "v"}, {Path: "/two", Root: k.dir + "/two", Volume: "v"}}
	before, err := os.ReadFile(one)
	must(t, err)
	k.store(func() { poke(t, one, 7) })
	k.wantExceptions(map[string]problem.Code{"/two/name": problem.FileChanged})
	after, err := os.ReadFile(one)
	must(t, err)
	for i, want := range [][]byte{before, after} {
		rec := list(t, k.r, &k.trees[i].Root)[0]
		if !bytes.Equal([]byte(contentOf(t, k.r, &rec)), want) {
			t.Errorf("%s/name has not what it had when it was read", k.trees[i].Path)
		}
	}
}

// A file with two names of which one vanishes while it is read is stored under
// the other, and content that did not change is read once.
func TestHardLinks(t *testing.T) {
	k := newReading(t)
	one := k.random("a/one", live)
	must(t, os.Link(one, k.dir+"/a/two"))
	must(t, os.Link(one, k.dir+"/three"))
	k.store()
	if got := k.p.Total().ReadBytes; got != int64(live) {
		t.Errorf("read %d bytes, want %d", got, live)
	}
	k.wantExceptions(nil)

	k = newReading(t)
	one = k.random("one", live)
	must(t, os.Link(one, k.dir+"/two"))
	wait := k.during(int64(live/4), 1, func() { must(t, os.Remove(one)) })
	k.store()
	wait()
	if got := k.names(0); !strings.Contains(got, "two") {
		t.Errorf("stored: %q", got)
	}
	if c := k.exceptions["/live/one"]; c != problem.FileVanished && c != "" || k.exceptions["/live/two"] != "" {
		t.Errorf("exceptions: %v", k.exceptions)
	}
}
