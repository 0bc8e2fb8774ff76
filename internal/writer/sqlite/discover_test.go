package sqlite

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/writer"
)

// Databases are found by what they are, each once, and nothing else is.
func TestDiscover(t *testing.T) {
	dir := t.TempDir()
	d := create(t, dir+"/a?b#c%20d 'e\".db", "delete")
	dir = strings.TrimSuffix(d.path, "/a?b#c%20d 'e\".db")
	must(t, os.Mkdir(dir+"/sub", 0o755))
	log := create(t, dir+"/sub/log.db", "wal")
	content, err := os.ReadFile(d.path)
	must(t, err)
	changed := func(at int, to byte) []byte {
		b := slices.Clone(content)
		b[at] = to
		return b
	}
	for name, b := range map[string][]byte{
		"encrypted": changed(3, 'x'), "page-size": changed(17, 7), "version": changed(18, 3), "fractions": changed(21, 65),
		"cut": content[:1536], "short": content[:100], "empty": {}, "text": []byte(strings.Repeat("SQLite format 3 ", 64)),
	} {
		must(t, os.WriteFile(dir+"/"+name, b, 0o644))
	}
	must(t, os.Symlink(d.path, dir+"/link"))
	must(t, os.Symlink(dir+"/sub", dir+"/linked"))
	must(t, os.Link(log.path, dir+"/sub/other-name"))
	must(t, syscall.Mkfifo(dir+"/fifo", 0o644))
	for _, paths := range [][]string{{dir}, {dir, dir + "/sub"}, {log.path, dir}, {d.path, log.path}, {dir, dir + "/gone", "/proc", "/sys"}} {
		all, err := New(Options{}).Discover(t.Context(), writer.Scope{Paths: paths})
		must(t, err)
		var ids []string
		for _, in := range all {
			ids = append(ids, in.About().ID)
			if in.About().Version == "" {
				t.Errorf("%s has no version", in.About().ID)
			}
		}
		if want := []string{d.ID(), log.ID()}; !slices.Equal(ids, want) {
			t.Errorf("below %q: found %q, want %q", paths, ids, want)
		}
	}
	s := d.prepare(Options{})
	d.freeze(s)
	d.thaw(s)
}

// What lies on another file system is another path's matter.
func TestOneFileSystem(t *testing.T) {
	v := scratch.New(t, "ext4", 32*scratch.MiB)
	inner := create(t, v.Dir+"/inner.db", "delete")
	for _, paths := range [][]string{{"/proc/self/cwd"}, {v.Dir}} {
		all, err := New(Options{}).Discover(t.Context(), writer.Scope{Paths: paths})
		must(t, err)
		if found := len(all) == 1 && all[0].About().ID == inner.ID(); found != (paths[0] == v.Dir) {
			t.Errorf("below %q: %d are found", paths, len(all))
		}
	}

	// And what nobody may write to cannot be locked.
	in := inner.instance(Options{})
	must(t, syscall.Mount("", v.Dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	wants(t, problem.WriterRights, in.Check(t.Context()))
	_, err := in.Prepare(t.Context(), writer.Need{})
	wants(t, problem.WriterRights, err)
	must(t, syscall.Mount("", v.Dir, "", syscall.MS_REMOUNT, ""))

	must(t, os.Remove(inner.path))
	wants(t, problem.WriterGone, in.Check(t.Context()))
	must(t, os.WriteFile(inner.path, make([]byte, 4096), 0o644))
	wants(t, problem.WriterFailed, in.Check(t.Context()))
}

// A server that does not answer, and is mounted below, is asked nothing.
func TestSilentServer(t *testing.T) {
	d := create(t, t.TempDir()+"/app.db", "delete")
	server := filepath.Join(filepath.Dir(d.path), "a-server")
	must(t, os.Mkdir(server, 0o755))
	end := scratch.Silent(t, "me@host:/srv", server, "fuse.sshfs")
	late := time.AfterFunc(long, end) // nothing else ends a wait for it
	all, err := New(Options{}).Discover(t.Context(), d.Scope())
	if !late.Stop() {
		t.Error("it was asked")
	}
	if err != nil || len(all) != 1 || all[0].About().ID != d.ID() {
		t.Errorf("%d are found, %v", len(all), err)
	}
}

// More than can be held are not found one by one: what is found is good, and
// that there are more is said.
func TestTooMany(t *testing.T) {
	d := create(t, t.TempDir()+"/0.db", "delete")
	content, err := os.ReadFile(d.path)
	must(t, err)
	for i := range most + 1 {
		must(t, os.WriteFile(d.path+strconv.Itoa(i), content, 0o644))
	}
	all, err := New(Options{}).Discover(t.Context(), d.Scope())
	wants(t, problem.WriterResources, err)
	if len(all) != most {
		t.Errorf("%d are found", len(all))
	}
}
