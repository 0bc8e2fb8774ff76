package backup

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/scratch"
	"stillpoint/internal/tree"
)

// trees returns what the newest backup holds: paths of the rig and their types.
func (r *rig) trees() string {
	var all []string
	for _, t := range r.list()[0].Trees {
		all = append(all, strings.TrimPrefix(t.Path, r.dir+"/")+" "+string(t.Root.Type))
	}
	return strings.Join(all, ", ")
}

// stored returns the names below a path in the newest backup.
func (r *rig) names(path string) string {
	r.Helper()
	repo, err := r.open(r.Context())
	r.must(err)
	defer repo.Close(r.Context())
	all, err := repo.Backups(r.Context())
	r.must(err)
	sel, err := repo.Select(r.Context(), &all[0], path)
	r.must(err)
	var names []string
	r.walk(repo, &sel[0].Record, "", &names)
	return strings.Join(names, " ")
}

func (r *rig) walk(repo *repository.Repository, dir *repository.Record, at string, names *[]string) {
	r.Helper()
	l, err := repo.Listing(r.Context(), dir)
	r.must(err)
	defer l.Close()
	for {
		rec, err := l.Next()
		if err != nil {
			return
		}
		*names = append(*names, at+rec.Name)
		if rec.Type == tree.Directory {
			r.walk(repo, &rec, at+rec.Name+"/", names)
		}
	}
}

// Any path can be selected, twice or in another one, whatever its type.
func TestSelection(t *testing.T) {
	notShort(t)
	r := newRig(t)
	r.write("src/dir/file", "content")
	r.write("src/dir-b/file", "content")
	r.must(os.Symlink("dir", r.path("src/link")))
	r.must(syscall.Mknod(r.path("src/socket"), syscall.S_IFSOCK|0o755, 0))
	r.must(syscall.Mkfifo(r.path("src/fifo"), 0o600))
	for _, c := range []struct {
		paths []string
		want  string
	}{
		{[]string{"src"}, "src dir"},
		{[]string{"src/dir", "src", "src/dir/file", "src"}, "src dir"},
		{[]string{"src/dir", "src/dir-b/", "src/./dir/../dir"}, "src/dir dir, src/dir-b dir"},
		{[]string{"src/dir/file"}, "src/dir/file file"},
		{[]string{"src/link"}, "src/dir dir"},
		{[]string{"src/link/file"}, "src/dir/file file"},
		{[]string{"src/socket", "src/fifo"}, "src/fifo fifo, src/socket socket"},
	} {
		o := Options{}
		for _, p := range c.paths {
			o.Paths = append(o.Paths, r.dir+"/"+p)
		}
		r.backup(o)
		if got := r.trees(); got != c.want {
			t.Errorf("%v: holds %s, want %s", c.paths, got, c.want)
		}
		to := r.path("to")
		rep, err := r.restoreTo("latest", to)
		r.must(err)
		r.wantStatus(rep, "complete", "")
		for _, tr := range r.list()[0].Trees {
			if out := command(t, "rsync", "-naHAXi", "--devices", "--specials", "--checksum", tr.Path, filepath.Dir(to+tr.Path)+"/"); out != "" {
				t.Errorf("%v: restored differs: %s", c.paths, out)
			}
		}
		r.must(os.RemoveAll(to))
	}
	for path, code := range map[string]problem.Code{
		"missing": problem.PathMissing, "src/missing/x": problem.PathMissing, "src/dir/file/x": problem.PathMissing,
		"repo": problem.Usage, "repo/kopia.repository.f": problem.Usage,
	} {
		_, err := r.try(Options{Paths: []string{r.path("src"), r.path(path)}})
		if problem.CodeOf(err) != code {
			t.Errorf("%s: %v, want %s", path, err, code)
		}
	}
}

func TestFileSystemRoot(t *testing.T) {
	notShort(t)
	v := scratch.New(t, "ext4", 64*mib)
	r := newRig(t)
	r.must(os.WriteFile(v.Dir+"/file", []byte("x"), 0o644))
	r.backup(Options{Paths: []string{v.Dir}})
	if got := r.names(v.Dir); got != "lost+found file" {
		t.Errorf("stored: %q", got)
	}
	rep, err := r.restoreTo("latest", r.path("to"))
	r.must(err)
	r.wantStatus(rep, "complete", "")
}

func TestExcludePatterns(t *testing.T) {
	for _, c := range []struct {
		pattern string
		fits    string // of the paths
	}{
		{"*.tmp", "/a/x.tmp /x.tmp"},
		{"x.tmp/", "/a/x.tmp /x.tmp"},
		{"/x.tmp", "/x.tmp"},
		{"/*/x.tmp", "/a/x.tmp"},
		{"/**/x.tmp", "/a/x.tmp /x.tmp"},
		{"a/x.tmp", "/a/x.tmp"},
		{"a/*.tmp/", "/a/x.tmp"},
		{"cache", "/a/b/cache"},
		{"b/**", "/a/b /a/b/cache"},
		{"**/cache", "/a/b/cache"},
		{"{cache,b}", "/a/b /a/b/cache"},
		{"[a-c]", "/a /a/b"},
		{"/", ""},
		{"*", "/a /a/b /a/b/cache /a/x.tmp /new\nline /x.tmp /\xff"},
		{"\xff", "/\xff"},
		{"new?line", "/new\nline"},
		{"X.TMP", ""},
		{"tmp", ""},
	} {
		rs, err := newRules([]string{c.pattern}, repoPlace{})
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
			continue
		}
		var got []string
		for _, p := range []string{"/a", "/a/b", "/a/b/cache", "/a/x.tmp", "/new\nline", "/x.tmp", "/\xff"} {
			if rs.match(p) != "" {
				got = append(got, p)
			}
		}
		if strings.Join(got, " ") != c.fits {
			t.Errorf("%q fits %q, want %q", c.pattern, got, c.fits)
		}
	}
	for _, p := range []string{"", "[", "a[", "{a", `\`} {
		if _, err := newRules([]string{p}, repoPlace{}); problem.CodeOf(err) != problem.Usage {
			t.Errorf("%q: %v", p, err)
		}
	}
}

// Excluded are names at any depth, whole paths, ends of paths; never what is
// selected itself. The report names them.
func TestExclude(t *testing.T) {
	notShort(t)
	r := newRig(t)
	for _, n := range []string{"a.tmp", "keep/b.tmp", "cache/x", "keep/cache/y", "dir/sub/z", "keep/dir/sub/w", "c.tmp/kept"} {
		r.write("src/"+n, "x")
	}
	rep := r.backup(Options{Exclude: []string{"*.tmp", r.path("src/cache") + "/", "dir/sub"}})
	if got, want := r.names(r.path("src")), "dir keep keep/cache keep/cache/y keep/dir"; got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
	want := map[string]string{
		"src/a.tmp": "excluded by *.tmp", "src/keep/b.tmp": "excluded by *.tmp", "src/c.tmp": "excluded by *.tmp",
		"src/cache": "excluded by " + r.path("src/cache"), "src/dir/sub": "excluded by dir/sub", "src/keep/dir/sub": "excluded by dir/sub",
	}
	if got := r.leftOut(rep); !maps.Equal(got, want) {
		t.Errorf("left out %v, want %v", got, want)
	}
	_, err := r.try(Options{Exclude: []string{"["}})
	r.wantCode(err, problem.Usage)

	// What is selected is stored, also in what is excluded from another path.
	r.backup(Options{Paths: []string{r.path("src"), r.path("src/c.tmp"), r.path("src/cache/x"), r.path("src/keep/cache")}, Exclude: []string{"*.tmp", "cache"}})
	if got, want := r.trees(), "src dir, src/c.tmp dir, src/cache/x file, src/keep/cache dir"; got != want {
		t.Errorf("holds %s, want %s", got, want)
	}
	to := r.restore("latest")
	for _, n := range []string{"c.tmp/kept", "cache/x", "keep/cache/y"} {
		if _, err := os.Stat(to + "/" + n); err != nil {
			t.Error(err)
		}
	}
}

// The repository does not hold itself, wherever a mount shows it; a directory
// that only has its name does.
func TestRepositoryInSelection(t *testing.T) {
	notShort(t)
	r := newRig(t)
	r.write("src/repo/file", "only the name")
	r.write("store/deep/file", "x")
	r.must(os.Rename(r.repo, r.path("store/deep/repo")))
	r.repo = r.path("store/deep/repo")
	for _, b := range []struct{ from, to string }{{"store", "src/bind"}, {"store/deep/repo", "src/other"}} {
		r.must(os.Mkdir(r.path(b.to), 0o755))
		command(t, "mount", "--bind", r.path(b.from), r.path(b.to))
		t.Cleanup(func() { command(t, "umount", r.path(b.to)) })
	}
	r.must(os.Symlink(r.repo, r.path("src/way")))
	rep := r.backup(Options{Paths: []string{r.path("src"), r.path("store")}})
	want := map[string]string{"store/deep/repo": reasonRepository, "src/bind/deep/repo": reasonRepository, "src/other": reasonRepository}
	if got := r.leftOut(rep); !maps.Equal(got, want) {
		t.Errorf("left out %v, want %v", got, want)
	}
	if got := r.names(r.path("src")); got != "bind bind/deep bind/deep/file repo repo/file way" {
		t.Errorf("stored %q", got)
	}
	if got := r.names(r.path("store")); got != "deep deep/file" {
		t.Errorf("stored %q", got)
	}
	// Through a link to it, too.
	r.repo = r.path("src/way")
	if got := r.leftOut(r.backup(Options{Paths: []string{r.path("store")}})); got["store/deep/repo"] != reasonRepository {
		t.Errorf("left out %v", got)
	}
}

// What is mounted below a selected path is stored with it, but for memory and
// kernel file systems, what --one-file-system leaves out, and what is excluded.
func TestMountsBelow(t *testing.T) {
	notShort(t)
	v := scratch.New(t, "ext4", 64*mib)
	r := newRig(t)
	r.must(os.WriteFile(v.Dir+"/on-volume", []byte("x"), 0o644))
	r.write("src/file", "x")
	mount := func(name string, args ...string) {
		r.must(os.MkdirAll(r.path(name), 0o755))
		command(t, "mount", append(args, r.path(name))...)
		t.Cleanup(func() { command(t, "umount", r.path(name)) })
	}
	mount("src/mnt", "--bind", v.Dir)
	mount("src/not", "--bind", v.Dir)
	mount("src/tmp", "-t", "tmpfs", "tmpfs")
	mount("src/proc", "-t", "proc", "proc")
	r.write("src/tmp/in-memory", "x")

	rep := r.backup(Options{Exclude: []string{"/**/src/not"}})
	if got := r.names(r.path("src")); got != "mnt mnt/lost+found proc tmp file mnt/on-volume" && got != "mnt mnt/lost+found mnt/on-volume proc tmp file" {
		t.Errorf("stored %q", got)
	}
	want := map[string]string{"src/tmp": "memory file system (tmpfs)", "src/proc": "file system of the kernel (proc)", "src/not": "excluded by /**/src/not"}
	if got := r.leftOut(rep); !maps.Equal(got, want) {
		t.Errorf("left out %v, want %v", got, want)
	}
	if len(rep.Volumes) != 2 {
		t.Errorf("volumes: %+v", rep.Volumes)
	}

	rep = r.backup(Options{OneFileSystem: true, Paths: []string{r.path("src"), r.path("src/not")}})
	if got := r.names(r.path("src")); got != "mnt not proc tmp file" {
		t.Errorf("--one-file-system: stored %q", got)
	}
	if got := r.trees(); got != "src dir, src/not dir" {
		t.Errorf("--one-file-system: holds %q", got)
	}
	if got := slices.Sorted(maps.Keys(r.leftOut(rep))); !slices.Equal(got, []string{"src/mnt", "src/proc", "src/tmp"}) {
		t.Errorf("--one-file-system: left out %v", got)
	}
	if _, err := os.Stat(r.restore("latest") + "/not/on-volume"); err != nil {
		t.Error(err)
	}

	// Memory cannot be had by a snapshot, and who selects it is told so.
	for _, paths := range [][]string{{r.path("src/tmp")}, {r.path("src/tmp/in-memory")}, {r.path("src"), r.path("src/tmp")}} {
		_, err := r.try(Options{Paths: paths, Provider: Auto})
		if code := problem.CodeOf(err); code != problem.VolumeMemory && code != problem.NoProvider || len(paths) == 1 && code != problem.VolumeMemory {
			t.Errorf("%v: %v", paths, err)
		}
	}
	_, err := r.try(Options{Provider: Auto})
	r.wantCode(err, problem.NoProvider)
	_, err = r.try(Options{Provider: "nonsense"})
	r.wantCode(err, problem.Usage)
}

// Hard links hold across directories and across selected paths; the content
// is read once.
func TestHardLinksAcrossPaths(t *testing.T) {
	r := newRig(t)
	one := r.random("src/a/one", mib)
	r.write("other/x", "x")
	for _, n := range []string{"src/two", "src/b/three", "other/four"} {
		r.must(os.MkdirAll(filepath.Dir(r.path(n)), 0o755))
		r.must(os.Link(one, r.path(n)))
	}
	aged()
	o := Options{Paths: []string{r.path("src"), r.path("other")}}
	for i := range 2 {
		rep := r.backup(o)
		if want := []int64{mib + 1, 0}[i]; rep.Total.BytesRead != want {
			t.Errorf("run %d: read %d bytes, want %d", i, rep.Total.BytesRead, want)
		}
		to := strings.TrimSuffix(r.restore("latest"), r.path("src"))
		var first os.FileInfo
		for _, n := range []string{"src/a/one", "src/two", "src/b/three", "other/four"} {
			info, err := os.Stat(to + r.path(n))
			r.must(err)
			if first == nil {
				first = info
			}
			if !os.SameFile(first, info) || info.Sys().(*syscall.Stat_t).Nlink != 4 {
				t.Errorf("run %d: %s is another file, or has %d links", i, n, info.Sys().(*syscall.Stat_t).Nlink)
			}
		}
	}
}

// The same volume under another device number: nothing is read again.
func TestReuseAcrossDevices(t *testing.T) {
	notShort(t)
	v := scratch.New(t, "ext4", 64*mib)
	r := newRig(t)
	r.must(os.MkdirAll(v.Dir+"/src/sub", 0o755))
	r.must(os.WriteFile(v.Dir+"/src/sub/file", []byte(strings.Repeat("x", 100_000)), 0o644))
	aged()
	paths := []string{v.Dir + "/src"}
	r.backup(Options{Paths: paths})
	before, err := os.Stat(v.Dir)
	r.must(err)
	command(t, "umount", v.Dir)
	loop := strings.TrimSpace(command(t, "losetup", "--find", "--show", v.Devices[0]))
	t.Cleanup(func() { command(t, "losetup", "--detach", loop) })
	command(t, "mount", loop, v.Dir)
	t.Cleanup(func() { command(t, "umount", v.Dir) })
	after, err := os.Stat(v.Dir)
	r.must(err)
	if before.Sys().(*syscall.Stat_t).Dev == after.Sys().(*syscall.Stat_t).Dev {
		t.Fatal("the device number is the same")
	}
	if rep := r.backup(Options{Paths: paths}); rep.Total.BytesRead != 0 || rep.Total.FilesReused != 1 {
		t.Errorf("read %d bytes, reused %d files", rep.Total.BytesRead, rep.Total.FilesReused)
	}
}

// The clock is set back between two runs.
func TestRunsWithClockSetBack(t *testing.T) {
	notShort(t)
	r := newRig(t)
	r.some()
	aged()
	var ahead time.Duration
	r.Now = func() time.Time { return time.Now().Add(ahead) }
	var ids []string
	for i, d := range []time.Duration{0, 48 * time.Hour, -48 * time.Hour, 0} {
		ahead = d
		r.write("src/changed", strings.Repeat("n", i))
		rep := r.backup(Options{Checkpoint: time.Hour})
		ids = append([]string{rep.Backup}, ids...)
		// The last run finds a backup that seems older than the files.
		if i > 0 && (rep.Total.BytesRead > int64(i)) != (i == 3) {
			t.Errorf("run %d read %d bytes", i, rep.Total.BytesRead)
		}
		r.same(r.path("src"), r.restore("latest"))
	}
	var got []string
	for _, b := range r.list() {
		got = append(got, b.ID)
	}
	if !slices.Equal(got, ids) {
		t.Errorf("in order are %v, want %v", got, ids)
	}
	r.sound()
}
