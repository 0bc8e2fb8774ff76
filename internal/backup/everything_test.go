package backup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/scratch"
)

// everything makes a tree with every kind of entry and attribute in dir, on a
// file system that has them all.
func everything(t *testing.T, dir string) {
	t.Helper()
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	file := func(name, content string) {
		t.Helper()
		do(os.MkdirAll(filepath.Dir(in(name)), 0o755))
		do(os.WriteFile(in(name), []byte(content), 0o644))
	}
	for _, n := range []string{"\xff\xfe", `\xff`, "new\nline", "a\"b", "日本", " ", strings.Repeat("n", 255), "-rf"} {
		file("names/"+n, n)
		file("names/dir"+n[:min(len(n), 200)]+"/x", n)
	}
	for i, mode := range []uint32{0, 0o400, 0o755, 0o4755, 0o2750, 0o6711, 0o1777} {
		file(fmt.Sprintf("modes/f%d", i), "x")
		do(os.Chown(in(fmt.Sprintf("modes/f%d", i)), 1000+i, 2000+i))
		do(syscall.Chmod(in(fmt.Sprintf("modes/f%d", i)), mode))
		do(os.MkdirAll(in(fmt.Sprintf("modes/d%d/below", i)), 0o755))
		do(os.Chown(in(fmt.Sprintf("modes/d%d", i)), 70000, 70001))
		do(syscall.Chmod(in(fmt.Sprintf("modes/d%d", i)), mode))
	}
	do(os.Mkdir(in("kinds"), 0o755))
	do(os.Symlink("../names", in("kinds/link")))
	do(os.Symlink("/nowhere\xff", in("kinds/dangling")))
	do(os.Lchown(in("kinds/dangling"), 12, 34))
	do(syscall.Mkfifo(in("kinds/fifo"), 0o620))
	do(syscall.Mknod(in("kinds/null"), syscall.S_IFCHR|0o666, 1<<8|3))
	do(syscall.Mknod(in("kinds/block"), syscall.S_IFBLK|0o660, 259<<8|17))
	do(syscall.Mknod(in("kinds/socket"), syscall.S_IFSOCK|0o755, 0))
	file("kinds/empty", "")
	do(os.Mkdir(in("kinds/empty-dir"), 0o755))
	file("links/a/one", "linked")
	do(os.MkdirAll(in("links/b"), 0o755))
	do(os.Link(in("links/a/one"), in("links/a/two")))
	do(os.Link(in("links/a/one"), in("links/b/three")))
	do(os.Link(in("kinds/fifo"), in("links/b/fifo")))
	file("attrs/file", "x")
	do(os.Mkdir(in("attrs/dir"), 0o755))
	for _, p := range []string{"attrs/file", "attrs/dir"} {
		do(syscall.Setxattr(in(p), "user.\xff\x01", []byte{0, 1, 255}, 0))
		do(syscall.Setxattr(in(p), "user.empty", nil, 0))
		do(syscall.Setxattr(in(p), "trusted.t", []byte(strings.Repeat("t", 2000)), 0))
		command(t, "setfacl", "-m", "u:1234:rwx,g:5678:r", in(p))
	}
	command(t, "setfacl", "-d", "-m", "u:1234:rwx", in("attrs/dir"))
	file("attrs/ping", "x")
	command(t, "setcap", "cap_net_raw+ep", in("attrs/ping"))
	file("attrs/flags", "x")
	command(t, "chattr", "+dA", in("attrs/flags"))
	command(t, "chattr", "+dA", in("attrs/dir"))
	f, err := os.Create(in("sparse"))
	do(err)
	for _, at := range []int64{0, 3 * mib, 40*mib + 123} {
		_, err = f.WriteAt([]byte(strings.Repeat("data", 5000)), at)
		do(err)
	}
	do(f.Truncate(64 * mib))
	do(f.Close())
	file("large", strings.Repeat("0123456789abcdef", 5*mib/16))
	do(exec.Command("sh", "-c", `head -c 9000000 /dev/urandom >"$1"`, "sh", in("random")).Run())
	for i, at := range []time.Time{time.Unix(0, 1), time.Unix(-1_000_000_000, 123456789), time.Unix(1<<33, 7)} {
		file(fmt.Sprintf("times/%d", i), "x")
		do(os.Chtimes(in(fmt.Sprintf("times/%d", i)), at, at))
	}
	do(os.Chtimes(in("times"), time.Unix(1e9, 1), time.Unix(1e9, 1)))
}

// Every kind of entry and attribute comes back, from a first backup, from one
// that reuses everything, and restored a second time over itself.
func TestEverythingComesBack(t *testing.T) {
	for _, fs := range []string{"btrfs", "ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			if fs != "btrfs" {
				notShort(t)
			}
			v := scratch.New(t, fs, scratch.GiB)
			r := newRig(t)
			src := v.Dir + "/src"
			r.must(os.Mkdir(src, 0o751))
			everything(t, src)
			first := r.backup(Options{Paths: []string{src}})
			time.Sleep(2500 * time.Millisecond) // the granule, until when files are read again
			r.backup(Options{Paths: []string{src}})
			third := r.backup(Options{Paths: []string{src}})
			if third.Total.BytesRead != 0 || third.Total.FilesReused != first.Total.Files {
				t.Errorf("third backup: %+v, of the first: %+v", third.Total, first.Total)
			}
			for i, b := range r.list() {
				to := fmt.Sprintf("%s/to%d", v.Dir, i)
				for range 2 {
					rep, err := r.restoreTo(b.ID, to)
					if err != nil || rep.Status != "complete" {
						t.Fatalf("restore %d: %v\n%s", i, err, r.log(rep))
					}
				}
				r.same(src, to+src)
			}
			r.sound()
		})
	}
}
