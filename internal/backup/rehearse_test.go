package backup

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

// What a rehearsal says is what the restore then does; and it does nothing.
func TestRehearse(t *testing.T) {
	r := newRig(t)
	for _, n := range []string{"same", "changed", "older", "newer", "dir/in", "dir2/in", "gone", "link-to-dir/in", "is-file/in"} {
		r.write("src/"+n, n)
	}
	r.must(os.Symlink("same", r.path("src/link")))
	r.must(os.Symlink("same", r.path("src/link2")))
	r.backup(Options{})
	// src itself is the target.
	r.write("src/changed", "changed, and longer")
	r.write("src/older", "older, and longer")
	r.must(os.Chtimes(r.path("src/older"), time.Unix(1e9, 0), time.Unix(1e9, 0)))
	r.write("src/newer", "newer, and longer")
	r.must(os.Remove(r.path("src/gone")))
	r.must(os.RemoveAll(r.path("src/dir2")))
	r.must(os.RemoveAll(r.path("src/link-to-dir")))
	r.must(os.Symlink("dir", r.path("src/link-to-dir")))
	r.must(os.RemoveAll(r.path("src/is-file")))
	r.write("src/is-file", "x")
	r.must(os.Remove(r.path("src/link2")))
	r.must(os.Symlink("elsewhere", r.path("src/link2")))

	rehearse := func(o tree.Overwrite) (words string, exceptions int) {
		before := command(t, "tar", "-C", r.dir, "-cf-", ".")
		var said []string
		n, err := r.Rehearse(t.Context(), r.open, RestoreOptions{Choose: r.choose("latest"), To: "/", Overwrite: o}, func(path, what string, err error) {
			if err != nil {
				what = string(problem.CodeOf(err))
			}
			said = append(said, strings.TrimPrefix(path, r.path("src")+"/")+" "+what)
		})
		r.must(err)
		if command(t, "tar", "-C", r.dir, "-cf-", ".") != before {
			t.Error("the rehearsal changed something")
		}
		slices.Sort(said)
		return strings.Join(said, ", "), n
	}
	for _, c := range []struct {
		o          tree.Overwrite
		want       string
		exceptions int
	}{
		{tree.Never, "changed target-exists, dir2 make, dir2/in make, gone make, is-file target-exists, link-to-dir target-unsafe, link2 target-exists, newer target-exists, older target-exists", 6},
		{tree.Newer, "changed keep, dir2 make, dir2/in make, gone make, is-file target-exists, link-to-dir target-unsafe, link2 keep, newer keep, older replace", 2},
		{tree.Always, "changed replace, dir2 make, dir2/in make, gone make, is-file replace, is-file/in make, link-to-dir replace, link-to-dir/in make, link2 replace, newer replace, older replace", 0},
	} {
		got, n := rehearse(c.o)
		if got != c.want || n != c.exceptions {
			t.Errorf("overwrite %d, %d exceptions:\n%s\nwant %d:\n%s", c.o, n, got, c.exceptions, c.want)
		}
	}
	// And now in earnest.
	for _, o := range []tree.Overwrite{tree.Never, tree.Newer, tree.Always} {
		said, n := rehearse(o)
		rep, err := r.Restore(t.Context(), r.open, RestoreOptions{Choose: r.choose("latest"), To: "/", Overwrite: o, Progress: &RestoreProgress{}})
		r.must(err)
		if x := r.exceptions(rep); len(x) != n {
			t.Errorf("overwrite %d: exceptions %v; rehearsed was %s", o, x, said)
		}
	}
	if b, err := os.ReadFile(r.path("src/link-to-dir/in")); err != nil || string(b) != "link-to-dir/in" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := os.ReadFile(r.path("src/dir/in")); err != nil || string(b) != "dir/in" {
		t.Errorf("written through a link: %q, %v", b, err)
	}
}
