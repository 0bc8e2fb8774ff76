package view

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
	"stillpoint/internal/tree"
)

// volumes runs a test on a scratch volume of each type, filled by makeTree.
func volumes(t *testing.T, test func(t *testing.T, dir string)) {
	for fsType, size := range map[string]int64{"ext4": 256 * scratch.MiB, "xfs": 320 * scratch.MiB} {
		t.Run(fsType, func(t *testing.T) {
			format := map[string][]string{"ext4": {"-b", "4096"}}[fsType] // room for extended attributes
			v := scratch.New(t, fsType, size, scratch.MountOptions("noatime"), scratch.Format(format...))
			dir := v.Dir + "/tree"
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			makeTree(t, dir)
			// Immutable files are in nobody's way when the volume goes.
			test(t, dir)
		})
	}
}

// program runs a program for at most a minute.
func program(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	var errors bytes.Buffer
	c.Stderr = &errors
	out, err := c.Output()
	if err != nil {
		t.Errorf("%s: %v: %s", name, err, errors.String())
	}
	return string(out)
}

// What programs see through a view is what they see live.
func TestPrograms(t *testing.T) {
	scratch.NeedRoot(t)
	volumes(t, func(t *testing.T, dir string) {
		_, shown := show(t, newFolder(t, dir))
		diff := program(t, "rsync", "-naHAXUi", "--checksum", "--numeric-ids", "--delete", shown+"/", dir+"/")
		if diff != "" {
			t.Errorf("rsync finds differences:\n%s", diff)
		}
		for _, c := range []struct {
			why     string
			command string
		}{
			{"extended attributes", "getfattr -d -h -m - -R -e hex . | sort"},
			{"ACLs", "find . -not -type l -print0 | sort -z | xargs -0 getfacl -n -p"},
			{"flags", "lsattr -R -a . 2>/dev/null | grep -v '^Operation' | sort"},
			{"stat", "find . -print0 | sort -z | xargs -0 stat --printf '%n %a %b %f %g %h %i %s %T %t %u %.W %.X %.Y %.Z\\n'"},
			{"names and types", "find . -printf '%p %i %y %l\\n' | sort"},
			{"content", "find . -type f -print0 | sort -z | xargs -0 sha256sum"},
			{"a tar archive", "tar --create --format=posix --pax-option='exthdr.name=%d/PaxHeaders/%f' --sort=name --numeric-owner --xattrs --xattrs-include='*' --acls . 2>/dev/null | sha256sum"},
		} {
			live := program(t, "bash", "-c", "cd \"$1\" && "+c.command, "sh", dir)
			if len(live) < 10 {
				t.Errorf("%s: nothing to compare: %q", c.why, live)
			}
			if got := program(t, "bash", "-c", "cd \"$1\" && "+c.command, "sh", shown); got != live {
				t.Errorf("%s differ:\n%s", c.why, firstDifference(got, live))
			}
		}
	})
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\n got %.500q\nwant %.500q", i, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// All that system calls tell is the same.
func TestCalls(t *testing.T) {
	scratch.NeedRoot(t)
	volumes(t, func(t *testing.T, dir string) {
		_, shown := show(t, newFolder(t, dir))
		seen := 0
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			seen++
			rel := strings.TrimPrefix(name, dir)
			got, want := calls(t, shown+"/."+rel), calls(t, name)
			if got != want {
				t.Errorf("%q:\n got %s\nwant %s", rel, got, want)
			}
			return nil
		})
		if err != nil || seen < 3000 {
			t.Errorf("%d files seen, %v", seen, err)
		}
	})
}

// calls describes a file by what system calls tell of it.
func calls(t *testing.T, name string) string {
	var b strings.Builder
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	fmt.Fprintf(&b, "%o %d %d %d %d %d %d:%d", st.Mode, st.Ino, st.Nlink, st.Uid, st.Size, st.Blocks, st.Rdev_major, st.Rdev_minor)
	for _, at := range []unix.StatxTimestamp{st.Atime, st.Mtime, st.Ctime, st.Btime} {
		fmt.Fprintf(&b, " %d.%09d", at.Sec, at.Nsec)
	}
	list := make([]byte, 65536)
	n, err := unix.Llistxattr(name, list)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	names := strings.Split(string(list[:n]), "\x00")
	slices.Sort(names)
	for _, x := range names {
		if x != "" {
			value := make([]byte, 65536)
			n, err := unix.Lgetxattr(name, x, value)
			fmt.Fprintf(&b, " %q=%q %v", x, value[:max(n, 0)], err)
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return b.String()
	}
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return b.String()
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	fmt.Fprintf(&b, " flags %x %v", flags, err)
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		for off := int64(0); ; {
			data, err := unix.Seek(fd, off, unix.SEEK_DATA)
			if err != nil {
				fmt.Fprintf(&b, " %v", err)
				break
			}
			if off, err = unix.Seek(fd, data, unix.SEEK_HOLE); err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}
			fmt.Fprintf(&b, " %d-%d", data, off)
		}
		past, err := unix.Seek(fd, int64(st.Size), unix.SEEK_HOLE)
		fmt.Fprintf(&b, " %d %v", past, err)
	}
	return b.String()
}

// The reader that backups use gets the same.
func TestTree(t *testing.T) {
	scratch.NeedRoot(t)
	volumes(t, func(t *testing.T, dir string) {
		_, shown := show(t, newFolder(t, dir))
		got, want := describe(t, shown), describe(t, dir)
		if got != want || strings.Count(want, "\n") < 3000 {
			t.Error(firstDifference(got, want))
		}
	})
}

func describe(t *testing.T, root string) string {
	t.Helper()
	node, err := tree.Open(tree.Source{Path: "/live", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "%+v\n", node.Entry)
	describeDir(t, &b, node.Dir)
	return b.String()
}

func describeDir(t *testing.T, b *strings.Builder, d *tree.Dir) {
	t.Helper()
	names, err := d.Names()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		name := n.Name
		e, err := d.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Complete(&e); err != nil {
			t.Fatal(err)
		}
		if e.Type == tree.File {
			c, err := d.OpenFile(e)
			if err != nil {
				t.Fatal(err)
			}
			if e.Flags, err = c.Flags(); err != nil {
				t.Fatal(err)
			}
			if e.Holes, err = c.Holes(); err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		fmt.Fprintf(b, "%s %+v\n", d.Path(), e)
		if e.Type == tree.Directory {
			child, err := d.OpenDir(name)
			if err != nil {
				t.Fatal(err)
			}
			describeDir(t, b, child)
			if err := child.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
