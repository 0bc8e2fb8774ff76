package tree

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/scratch"
)

// TestEveryAttributeComesBack is promise 5: a tree with every kind of entry is
// read and made again, and the usual programs see no difference.
func TestEveryAttributeComesBack(t *testing.T) {
	eachFS(t, func(t *testing.T, v *scratch.Volume) {
		makeEverything(t, filepath.Join(v.Dir, "from"))
		copyTree(t, Source{Path: "/live", Root: filepath.Join(v.Dir, "from")}, filepath.Join(v.Dir, "to"))
		remount(t, v)
		from, to := filepath.Join(v.Dir, "from"), filepath.Join(v.Dir, "to")
		compare(t, from, to)

		again := copyTree(t, Source{Path: "/live", Root: from}, to)
		if len(again.outcomes) != 1 || again.outcomes[Same] == 0 {
			t.Errorf("a second run is not all the same: %v", again.outcomes)
		}
		compare(t, from, to)
		replaced := copyTreeLoosely(t, Source{Path: "/live", Root: from}, to, Always)
		if len(replaced.problems) > 0 || len(replaced.unset) > 0 || len(replaced.outcomes) != 2 || replaced.outcomes[Replaced] == 0 || replaced.outcomes[Same] == 0 {
			t.Errorf("a third run, over it: %v, %v, %v", replaced.outcomes, replaced.problems, replaced.unset)
		}
		compare(t, from, to)
	})
}

func makeEverything(t *testing.T, root string) {
	t.Helper()
	b := builder{t: t, root: root}
	b.dir("")
	b.types()
	b.names()
	b.times()
	b.modes()
	b.xattrs()
	b.links()
	b.sparse()
	b.flags()
	b.dirTimes()
}

type builder struct {
	t    *testing.T
	root string
}

func (b builder) path(name string) string { return filepath.Join(b.root, name) }

func (b builder) do(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b builder) dir(name string) { b.t.Helper(); b.do(os.Mkdir(b.path(name), 0o755)) }

func (b builder) file(name, content string) {
	b.t.Helper()
	b.do(os.WriteFile(b.path(name), []byte(content), 0o644))
}

func (b builder) types() {
	b.dir("types")
	b.file("types/file", "content")
	b.file("types/empty", "")
	b.dir("types/empty-dir")
	b.do(os.Symlink("file", b.path("types/link")))
	b.do(os.Symlink("/nowhere/at/all", b.path("types/dangling")))
	b.do(os.Symlink(strings.Repeat("x/", 500)+"y", b.path("types/long-link")))
	b.do(os.Lchown(b.path("types/link"), 12, 34))
	b.do(syscall.Mkfifo(b.path("types/fifo"), 0o620))
	b.do(syscall.Mknod(b.path("types/char"), syscall.S_IFCHR|0o600, 1<<8|3))
	b.do(syscall.Mknod(b.path("types/block"), syscall.S_IFBLK|0o660, 259<<8|17))
	b.do(syscall.Mknod(b.path("types/big-minor"), syscall.S_IFBLK|0o660, 0x12300_045|8<<8))
	b.do(syscall.Mknod(b.path("types/socket"), syscall.S_IFSOCK|0o755, 0))
	for i, name := range []string{"file", "fifo", "char", "block", "socket", "empty-dir"} {
		b.do(os.Chown(b.path("types/"+name), 1000+i, 4_000_000_000-i))
	}
	random := make([]byte, 3<<20+17)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	b.file("types/large", string(random))
}

func (b builder) names() {
	b.dir("names")
	for _, n := range []string{"new\nline", `quote"s'`, `back\slash`, `\x41`, `\xff`, "\xff\xfe", "caf\xe9", "café", "a b", " ", "-rf", "*", "日本", strings.Repeat("n", 255), strings.Repeat("\xff", 255), ".hidden", "...", "\x01\x7f"} {
		b.file("names/"+n, n)
	}
	b.dir("names/dir\xff\n")
	b.file("names/dir\xff\n/x", "x")
}

func (b builder) times() {
	b.dir("times")
	for i, at := range []time.Time{
		time.Unix(0, 1), time.Unix(-1, 999_999_999), time.Unix(-1_000_000_000, 123_456_789),
		time.Unix(1<<31-1, 999_999_999), time.Unix(1<<31+5, 7), time.Unix(1<<33, 123_456_789), time.Unix(1_700_000_000, 0),
	} {
		name := fmt.Sprintf("times/%d", i)
		b.file(name, name)
		b.do(os.Chtimes(b.path(name), at, at))
		b.do(os.Symlink("x", b.path(name+"-link")))
		run(b.t, "touch", "-h", "-d", at.UTC().Format("2006-01-02T15:04:05.999999999Z"), b.path(name+"-link"))
		b.do(syscall.Mkfifo(b.path(name+"-fifo"), 0o600))
		b.do(os.Chtimes(b.path(name+"-fifo"), at, at))
	}
}

func (b builder) modes() {
	b.dir("modes")
	for _, mode := range []uint32{0, 0o400, 0o777, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777} {
		name := fmt.Sprintf("modes/%04o", mode)
		b.file(name, name)
		b.do(os.Chown(b.path(name), 1234, 5678))
		b.do(syscall.Chmod(b.path(name), mode))
		b.dir(name + "-dir")
		b.do(os.Chown(b.path(name+"-dir"), 5678, 1234))
		b.file(name+"-dir/in", "x")
		b.do(syscall.Chmod(b.path(name+"-dir"), mode))
	}
}

func (b builder) xattrs() {
	b.dir("xattrs")
	b.file("xattrs/file", "x")
	b.dir("xattrs/dir")
	b.do(os.Symlink("file", b.path("xattrs/link")))
	b.do(syscall.Mkfifo(b.path("xattrs/fifo"), 0o600))
	set := func(path, name string, value []byte) {
		b.t.Helper()
		b.do(syscall.Setxattr(b.path(path), name, value, 0))
	}
	set("xattrs/file", "user.empty", nil)
	set("xattrs/file", "user.nul", []byte{0, 1, 0, 255})
	set("xattrs/file", "user.big", bytes.Repeat([]byte{0, 1, 2}, 4000)) // more than fits a first try, less than a block on btrfs
	set("xattrs/file", "trusted.overlay.opaque", []byte("y"))
	set("xattrs/file", "security.other", []byte("label"))
	for i := range 60 {
		set("xattrs/file", fmt.Sprintf("user.many-%02d-%s", i, strings.Repeat("n", 30)), []byte{byte(i)})
	}
	set("xattrs/dir", "user.of-dir", []byte("d"))
	set("xattrs/dir", "trusted.of-dir", []byte("d"))
	set("xattrs/fifo", "trusted.of-fifo", []byte("f"))
	run(b.t, "setfattr", "-h", "-n", "trusted.of-link", "-v", "l", b.path("xattrs/link"))
	run(b.t, "setfattr", "-h", "-n", "security.of-link", "-v", "l", b.path("xattrs/link"))
	b.file("xattrs/acl", "x")
	run(b.t, "setfacl", "-m", "u:1:rwx,g:2:r-x,m::r-x", b.path("xattrs/acl"))
	run(b.t, "setfacl", "-m", "u:3:r--,d:u:4:rwx,d:g:5:---,d:o::-", b.path("xattrs/dir"))
	b.file("xattrs/dir/inherits-acl", "x")
	b.dir("xattrs/dir/inherits-acls")
	b.file("xattrs/dir/no-acl", "x")
	run(b.t, "setfacl", "-b", b.path("xattrs/dir/no-acl"))
	b.file("xattrs/caps", "x")
	b.do(os.Chown(b.path("xattrs/caps"), 7, 7))
	run(b.t, "setcap", "cap_net_raw,cap_net_admin=ep", b.path("xattrs/caps"))
}

func (b builder) links() {
	b.dir("links")
	b.dir("links/a")
	b.dir("links/b")
	b.file("links/a/one", "linked")
	b.do(os.Link(b.path("links/a/one"), b.path("links/b/two")))
	b.do(os.Link(b.path("links/a/one"), b.path("links/three")))
	b.do(os.Symlink("target", b.path("links/a/symlink")))
	b.do(os.Link(b.path("links/a/symlink"), b.path("links/b/symlink")))
	b.do(syscall.Mkfifo(b.path("links/a/fifo"), 0o600))
	b.do(os.Link(b.path("links/a/fifo"), b.path("links/b/fifo")))
	b.file("links/a/immutable", "linked")
	b.do(os.Link(b.path("links/a/immutable"), b.path("links/b/immutable")))
	b.chattr("+i", "links/a/immutable")
}

func (b builder) sparse() {
	b.dir("sparse")
	for name, data := range map[string][]int64{"start": {1 << 20}, "middle": {0, 5 << 20}, "end": {0}, "both": {1 << 20, 3 << 20}, "none": nil} {
		f, err := os.Create(b.path("sparse/" + name))
		b.do(err)
		b.do(f.Truncate(7 << 20))
		for _, off := range data {
			_, err := f.WriteAt(bytes.Repeat([]byte(name), 30000), off)
			b.do(err)
		}
		b.do(f.Close())
	}
	huge := int64(1 << 40)
	f, err := os.Create(b.path("sparse/1TiB"))
	b.do(err)
	b.do(f.Truncate(huge))
	b.do(f.Close())
}

func (b builder) chattr(flags, name string) {
	b.t.Helper()
	path := b.path(name)
	run(b.t, "chattr", flags, path)
}

func (b builder) flags() {
	b.dir("flags")
	for _, f := range []string{"i", "a", "d", "A", "S", "di"} {
		b.file("flags/"+f, "x")
		b.file("flags/empty-"+f, "")
		b.dir("flags/dir-" + f)
		b.file("flags/dir-"+f+"/in", "x")
		run(b.t, "chattr", "-R", "-f", "-ASd", b.path("flags/dir-"+f)) // whatever was inherited
		for _, name := range []string{f, "empty-" + f, "dir-" + f} {
			b.chattr("+"+f, "flags/"+name)
		}
	}
	if _, err := tryRun(b.t, "btrfs", "filesystem", "df", b.root); err != nil {
		b.dir("flags/dirsync")
		if _, err := tryRun(b.t, "chattr", "+D", b.path("flags/dirsync")); err != nil && !strings.Contains(err.Error(), "not supported") {
			b.t.Fatal(err)
		}
		return
	}
	for _, f := range []string{"C", "c"} {
		b.file("flags/"+f, "")
		b.file("flags/empty-"+f, "")
		b.dir("flags/dir-" + f)
		for _, name := range []string{f, "empty-" + f, "dir-" + f} {
			b.chattr("+"+f, "flags/"+name)
		}
		b.file("flags/"+f, strings.Repeat("some content ", 50_000))
		b.file("flags/dir-"+f+"/inherits", strings.Repeat("some content ", 50_000))
		b.dir("flags/dir-" + f + "/inherits-too")
	}
	b.file("flags/zstd", "")
	b.do(syscall.Setxattr(b.path("flags/zstd"), "btrfs.compression", []byte("zstd"), 0))
	b.file("flags/zstd", strings.Repeat("some content ", 50_000))
}

// dirTimes gives the directories times that differ from when they were made.
func (b builder) dirTimes() {
	at := time.Unix(1_600_000_000, 1)
	b.do(filepath.WalkDir(b.root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && !strings.HasPrefix(d.Name(), "dir-") {
			at = at.Add(time.Second + 11*time.Nanosecond)
			err = os.Chtimes(path, at, at)
		}
		return err
	}))
}

// compare asks programs that do not know us.
func compare(t *testing.T, from, to string) {
	t.Helper()
	if out := run(t, "rsync", "-naHAXi", "--checksum", "--delete", "--numeric-ids", "--exclude=/sparse/1TiB", from+"/", to+"/"); out != "" {
		t.Errorf("rsync sees differences:\n%s", out)
	}
	same := func(what string, see func(root string) string) {
		t.Helper()
		a, b := see(from), see(to)
		if a == "" {
			t.Errorf("%s says nothing", what)
		}
		if a != b {
			t.Errorf("%s differs:\n%s", what, firstDifference(a, b))
		}
	}
	in := func(command string) func(string) string {
		return func(root string) string { return run(t, "bash", "-c", "cd \"$0\" && "+command, root) }
	}
	same("getfattr", in("find . -print0 | sort -z | xargs -0 getfattr -d -m - -h -e hex"))
	same("getfacl", in("find . ! -type l -print0 | sort -z | xargs -0 getfacl -n"))
	same("getcap", in("getcap -r ."))
	// Flags that the file system sets by itself are not compared.
	same("lsattr", func(root string) string { return keptLetters(in("lsattr -aR . 2>/dev/null | sort")(root)) })
	// Sizes, block counts of sparse files, link counts, ns times of everything.
	same("stat", in(`find . -printf '%p %y %m %U %G %T@ %n %l\n' | sort; find . -type f -printf '%p %s\n' | sort`))
	// XFS allocates a little more at the end of what is written last.
	same("holes", in(`for f in sparse/*; do echo "$f"; xfs_io -r -c "seek -a -r 0" "$f" | awk '{print $1, int(($2+65535)/65536)}'; done`))
}

// keptLetters keeps of what lsattr prints the flags that are restored: others
// are set by the file system itself.
func keptLetters(lsattr string) string {
	letters := regexp.MustCompile(`(?m)^[-a-zA-Z]{22} `)
	return letters.ReplaceAllStringFunc(lsattr, func(flags string) string {
		return regexp.MustCompile(`[^iadASDCc]`).ReplaceAllString(flags, "") + " "
	})
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range x {
		if i >= len(y) || x[i] != y[i] {
			return fmt.Sprintf("-%q\n+%q", x[i], append(y, "")[min(i, len(y))])
		}
	}
	return "more lines"
}
