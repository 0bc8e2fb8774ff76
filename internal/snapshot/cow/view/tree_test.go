package view

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
)

// makeTree makes a tree of everything that a file system can hold.
func makeTree(t *testing.T, dir string) {
	t.Helper()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	content := func(n int) []byte {
		b := make([]byte, n)
		for i := 0; i+8 <= n; i += 8 {
			v := random.Uint64()
			for j := range 8 {
				b[i+j] = byte(v >> (8 * j))
			}
		}
		return b
	}
	write := func(name string, n int) string {
		t.Helper()
		must(name, os.WriteFile(dir+"/"+name, content(n), 0o644))
		return dir + "/" + name
	}
	write("empty", 0)
	write("one", 1)
	write("page", 4096)
	write("odd", 4097)
	write("large", 5<<20+17)
	write("latin-\xe4\xf6\xfc\xff", 3)
	write("new\nline \t\\*?", 4)
	write(strings.Repeat("n", 255), 5)

	// Modes, owners, links.
	must("suid", os.Chmod(write("suid", 10), 0o755|os.ModeSetuid))
	must("sgid", os.Chmod(write("sgid", 10), 0o755|os.ModeSetgid))
	must("secret", os.Chmod(write("secret", 10), 0))
	must("owned", os.Chown(write("owned", 10), 1234567, 4294967294))
	must("sticky", os.Mkdir(dir+"/sticky", 0o777))
	must("sticky", os.Chmod(dir+"/sticky", 0o777|os.ModeSticky|os.ModeSetgid))
	must("link", os.MkdirAll(dir+"/deep/er/est", 0o750))
	must("link", os.Link(dir+"/one", dir+"/deep/er/one again"))
	must("link", os.Link(dir+"/one", dir+"/deep/er/est/and again"))
	must("symlink", os.Symlink("nowhere/\xff", dir+"/dangling"))
	must("symlink", os.Symlink(strings.Repeat("x/", 500)+"y", dir+"/long link"))
	must("symlink", os.Lchown(dir+"/dangling", 77, 78))

	// Special files.
	must("fifo", unix.Mkfifo(dir+"/fifo", 0o600))
	must("socket", unix.Mknod(dir+"/socket", unix.S_IFSOCK|0o640, 0))
	must("char", unix.Mknod(dir+"/char", unix.S_IFCHR|0o640, int(unix.Mkdev(1, 3))))
	must("block" /* the largest on XFS */, unix.Mknod(dir+"/block", unix.S_IFBLK|0o640, int(unix.Mkdev(511, 1<<18-1))))
	must("minor", unix.Mknod(dir+"/minor", unix.S_IFCHR|0o640, int(unix.Mkdev(259, 300))))

	// Extended attributes of every namespace; as many as fit an inode's block.
	for name, value := range map[string]string{
		"user.text": "hello", "user.empty": "", "user.binary\xff": "\x00\x01\xff", "user.large": strings.Repeat("v", 2500),
		"trusted.t": "root only", "security.other": "label",
		"security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		must(name, unix.Setxattr(dir+"/page", name, []byte(value), 0))
	}
	must("xattr of a directory", unix.Setxattr(dir+"/sticky", "trusted.dir", []byte("d"), 0))
	must("xattr of a link", unix.Lsetxattr(dir+"/dangling", "trusted.link", []byte("l"), 0))
	scratch.Run(t, "setfacl", "-m", "u:4711:rwx,g:4712:r--,m::rw-", dir+"/odd")
	scratch.Run(t, "setfacl", "-m", "d:u:4711:rwx,d:o::---", dir+"/deep")

	// Holes: at the start, in the middle, at the end, unwritten blocks.
	f, err := os.Create(dir + "/sparse")
	must("sparse", err)
	for _, at := range []int64{1 << 20, 3<<20 + 100, 64 << 20} {
		_, err = f.WriteAt(content(5000), at)
		must("sparse", err)
	}
	must("sparse", f.Truncate(80<<20))
	must("sparse", f.Close())
	must("hole only", os.WriteFile(dir+"/hole only", nil, 0o600))
	must("hole only", os.Truncate(dir+"/hole only", 10<<20))
	f, err = os.Create(dir + "/preallocated")
	must("preallocated", err)
	must("preallocated", unix.Fallocate(int(f.Fd()), 0, 0, 1<<20))
	must("preallocated", unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 1<<20, 1<<20))
	must("preallocated", f.Close())

	// More names than fit one answer of the protocol.
	must("many", os.Mkdir(dir+"/many", 0o755))
	for i := range 3000 {
		must("many", os.WriteFile(fmt.Sprintf("%s/many/%06d a name of some length", dir, i), nil, 0o600))
	}

	// Times: before 1970, after 2038, to the nanosecond.
	for name, at := range map[string]time.Time{
		"empty": time.Date(1905, 1, 2, 3, 4, 5, 6, time.UTC), "one": time.Unix(-1, 999999999), "odd": time.Unix(0, 1),
		"large": time.Date(2400, 1, 2, 3, 4, 5, 999999999, time.UTC), "deep": time.Date(2040, 1, 1, 0, 0, 0, 123456789, time.UTC),
	} {
		must(name, os.Chtimes(dir+"/"+name, at.Add(-time.Hour), at))
	}

	// Flags come last: they forbid changes.
	scratch.Run(t, "chattr", "+dA", dir+"/page")
	scratch.Run(t, "chattr", "+a", dir+"/one")
	scratch.Run(t, "chattr", "+i", dir+"/owned")
	scratch.Run(t, "chattr", "+d", dir+"/sticky")
	unix.Sync() // delayed allocation would change the numbers of blocks
}
