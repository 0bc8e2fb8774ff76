package backup

import (
	"maps"
	"os"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
)

// A live reading goes into the subvolumes that are nested below a path, as a
// snapshot does: each has its own identity, read-only snapshots are left out
// by name, and a subvolume is where its name is, not where it hangs in a table.
func TestNestedLive(t *testing.T) {
	notShort(t)
	v := scratch.New(t, "btrfs", 512*mib)
	r := newRig(t)
	write := func(name, content string) {
		t.Helper()
		r.must(os.WriteFile(v.Dir+"/"+name, []byte(content), 0o644))
	}
	sub := func(name string) { command(t, "btrfs", "subvolume", "create", v.Dir+"/"+name) }
	r.must(os.MkdirAll(v.Dir+"/srv/dir", 0o755))
	write("srv/file", "outer")
	sub("srv/one")
	write("srv/one/file", "one")
	r.must(os.Mkdir(v.Dir+"/srv/one/dir", 0o755))
	sub("srv/one/dir/two")
	write("srv/one/dir/two/file", "two")
	sub("srv/dir/gone.tmp")
	sub("srv/mounted")
	sub("beside")
	command(t, "btrfs", "subvolume", "snapshot", "-r", v.Dir+"/srv/one", v.Dir+"/srv/kept")
	command(t, "btrfs", "subvolume", "snapshot", v.Dir+"/srv/one", v.Dir+"/srv/clone")
	r.must(os.Mkdir(v.Dir+"/.stillpoint", 0o700))
	other := scratch.New(t, "ext4", 64*mib)
	r.must(os.WriteFile(other.Dir+"/elsewhere", []byte("x"), 0o644))
	command(t, "mount", "--bind", other.Dir, v.Dir+"/srv/mounted")
	defer command(t, "umount", v.Dir+"/srv/mounted")
	// The same inode number in two subvolumes is not one file.
	for _, d := range []string{"srv/one", "srv/clone"} {
		write(d+"/linked", d)
		r.must(os.Link(v.Dir+"/"+d+"/linked", v.Dir+"/"+d+"/again"))
	}

	check := func(path, names string, left map[string]string) {
		t.Helper()
		rep := r.backup(Options{Paths: []string{v.Dir + path}, Exclude: []string{"*.tmp", "lost+found"}})
		if got := r.names(v.Dir + path); got != names {
			t.Errorf("%s: stored %q, want %q", path, got, names)
		}
		want := map[string]string{}
		for p, reason := range left {
			want[v.Dir+p] = reason
		}
		if got := r.leftOut(rep); !maps.Equal(got, want) {
			t.Errorf("%s: left out %v, want %v", path, got, want)
		}
		var files int64
		for _, vol := range rep.Volumes {
			files += vol.Counts.Files
		}
		if files != rep.Total.Files || files == 0 {
			t.Errorf("%s: %d files in the volumes, %d in all", path, files, rep.Total.Files)
		}
		to, err := os.MkdirTemp(r.dir, "to-")
		r.must(err)
		if rep, err := r.restoreTo("latest", to); err != nil || len(rep.Exceptions) > 0 {
			t.Errorf("%s: restore: %v\n%s", path, err, r.log(rep))
		}
		stub := "clone/dir/two" // has times that nobody can set
		if path == "/srv/kept" {
			stub = "dir/two"
		}
		if out := command(t, "rsync", "-naHAXi", "--checksum", "--delete", "--exclude", "*.tmp", "--exclude", "lost+found", "--exclude", "/kept/*", "--exclude", "/srv/kept/*", "--exclude", "/.stillpoint", "--exclude", stub, v.Dir+path+"/", to+v.Dir+path+"/"); out != "" {
			t.Errorf("%s and what was restored differ:\n%s", path, out)
		}
		time.Sleep(2500 * time.Millisecond) // the granule, until when files are read again
		r.backup(Options{Paths: []string{v.Dir + path}})
		if again := r.backup(Options{Paths: []string{v.Dir + path}}); again.Total.BytesRead != 0 {
			t.Errorf("%s: read again: %d bytes", path, again.Total.BytesRead)
		}
	}
	kept := "read-only snapshot of a subvolume"
	srv := "clone clone/dir clone/dir/two clone/again clone/file clone/linked dir kept mounted mounted/elsewhere one one/dir one/dir/two one/dir/two/file one/again one/file one/linked file"
	check("/srv", srv, map[string]string{"/srv/kept": kept, "/srv/dir/gone.tmp": "excluded by *.tmp", "/srv/mounted/lost+found": "excluded by lost+found"})
	check("/srv/one", "dir dir/two dir/two/file again file linked", nil)
	check("/srv/one/dir", "two two/file", nil)
	check("/srv/kept", "dir dir/two file", nil)
	vol, _ := scratch.Find(t, v.Dir)
	if id := r.list()[0].Trees[0].Root.Volume; id == string(vol.ID) {
		t.Errorf("a subvolume that is selected itself has the identity %s of the one it is nested in", id)
	}

	rep := r.backup(Options{Paths: []string{v.Dir, v.Dir + "/srv/kept"}, Exclude: []string{"mounted"}})
	if got := r.leftOut(rep)[v.Dir+"/.stillpoint"]; got != reasonOwn {
		t.Errorf("our own folder: %q", got)
	}
	if got := r.trees(); got != v.Dir+" dir, "+v.Dir+"/srv/kept dir" {
		t.Errorf("holds %s", got)
	}
	r.sound()

	// Made after the plan: named.
	r.Watch = nil
	rep, err := r.try(Options{Paths: []string{v.Dir + "/srv"}, Expect: func(int64, int64) {
		if _, err := os.Stat(v.Dir + "/srv/late"); err != nil {
			sub("srv/late")
		}
	}})
	r.must(err)
	if rep.Code != problem.VolumeLate {
		t.Errorf("made after the plan:\n%s", r.log(rep))
	}
}
