package btrfs

import (
	"os"
	"testing"
)

// A subvolume on the way to a selected one goes, and a directory, or a file,
// comes to its place: that is shown, and nothing is put over it.
func TestNothingIsHidden(t *testing.T) {
	for what, put := range map[string]func(t *testing.T, d disk){
		"directory": func(t *testing.T, d disk) {
			must(t, os.Mkdir(d.in("@/a"), 0o755))
			must(t, os.WriteFile(d.in("@/a/in"), []byte("real"), 0o644))
		},
		"whole way": func(t *testing.T, d disk) {
			must(t, os.MkdirAll(d.in("@/a/b/c"), 0o755))
			must(t, os.WriteFile(d.in("@/a/in"), []byte("real"), 0o644))
		},
		"file": func(t *testing.T, d disk) { must(t, os.WriteFile(d.in("@/a"), []byte("real"), 0o644)) },
	} {
		t.Run(what, func(t *testing.T) {
			d := newDisk(t)
			d.create("@", "@/a", "@/a/b/c")
			s := prepare(t, of(d.mounted("@"), "in", "a/b/c")).(*set)
			must(t, os.Rename(d.in("@/a"), d.in("moved")))
			put(t, d)
			must(t, s.take()) // without the checks of Commit
			s.state = taken
			snap := s.targets[0]
			defer func() { must(t, snap.Release(t.Context())) }()
			shows(t, snap, ".", "a/b/c:volume-late")
			in := "/a/in"
			if what == "file" {
				in = "/a"
			}
			if b, err := os.ReadFile(snap.Root() + in); err != nil || string(b) != "real" {
				t.Errorf("shows %q, %v", b, err)
			}
		})
	}
}
