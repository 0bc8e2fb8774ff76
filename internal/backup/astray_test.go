package backup

import (
	"os"
	"path/filepath"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// TestLedAstray: the way to a selected path was resolved when the backup was
// planned. Who replaces a directory on it by a symbolic link before it is read
// must not have something else stored under its name.
func TestLedAstray(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"eve/data/sub", "elsewhere/sub"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "eve/data/sub")
	s := source{path: path, place: place{volume: volume.Volume{ID: "v"}, rel: "eve/data/sub"}}
	r, err := s.reading(nil)
	if err != nil {
		t.Fatal(err)
	}
	r.close()
	if err := os.Rename(filepath.Join(dir, "eve/data"), filepath.Join(dir, "eve/away")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "eve/data")); err != nil {
		t.Fatal(err)
	}
	if r, err := s.reading(nil); problem.CodeOf(err) != problem.FileChanged {
		t.Errorf("reading over a symbolic link: %v, %v", r, err)
	}
}
