package repository

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

// What is added to a tree is in it, in the order of the names, and takes the
// place of what was there.
func TestAdded(t *testing.T) {
	k := newReading(t)
	must(t, os.MkdirAll(filepath.Join(k.dir, "data/inner"), 0o755))
	must(t, os.Mkdir(filepath.Join(k.dir, "other"), 0o755))
	for _, name := range []string{"data/a", "data/label", "data/z", "other/file"} {
		write(t, filepath.Join(k.dir, name), "live "+name)
	}
	w, err := k.r.Begin(t.Context(), &k.p)
	must(t, err)
	defer w.Close(t.Context())
	exceptions := map[string]problem.Code{}
	o := StoreOptions{Instant: time.Now(), Exception: func(path string, err error) { exceptions[path] = problem.CodeOf(err) }}
	inner, err := w.Store(t.Context(), tree.Source{Path: "/live/data/inner", Root: filepath.Join(k.dir, "other"), Volume: "w"}, o)
	must(t, err)
	at := time.Unix(1e9, 5)
	file := func(text string) *AddedFile {
		return &AddedFile{Content: []byte(text), Mode: 0o640, UID: 5, GID: 6, Modified: at}
	}
	o.Added = []Added{
		{Path: "/live/data/inner", Tree: &inner},
		{Path: "/live/data/label", File: file("new")},
		{Path: "/live/data/m", File: file("added")},
		{Path: "/live/nowhere/m", File: file("lost")},
	}
	whole, err := w.Store(t.Context(), k.sources[0], o)
	must(t, err)
	must(t, w.Record(t.Context(), &Backup{ID: "id", Trees: []Tree{whole}}))
	if len(exceptions) != 1 || exceptions["/live/nowhere/m"] != problem.FileVanished {
		t.Errorf("exceptions %v", exceptions)
	}
	must(t, k.r.Verify(t.Context(), []Backup{{ID: "id", Trees: []Tree{whole}}}, VerifyOptions{ReadData: true, Damage: func(path string, err error) { t.Errorf("damaged: %s: %v", path, err) }}))
	for path, want := range map[string]string{
		"data/inner/file": "live other/file", "data/label": "new", "data/m": "added", "data/a": "live data/a", "data/z": "live data/z",
	} {
		r, err := k.r.Lookup(t.Context(), &whole, "/live/"+path)
		must(t, err)
		if got := contentOf(t, k.r, &r); got != want {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
		if path == "data/m" && (r.Mode != 0o640 || r.UID != 5 || r.GID != 6 || !r.Modified.Equal(at)) {
			t.Errorf("%s is %+v", path, r.Entry)
		}
	}
	if n := whole.Root.Summary.TotalFileCount; n != 6 {
		t.Errorf("%d files", n)
	}
}
