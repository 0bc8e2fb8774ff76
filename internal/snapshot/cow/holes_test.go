package cow

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"stillpoint/internal/problem"
)

// A way to change files that no check of the suite has. What it changes shows
// in no snapshot: a file reads as it was, or as torn, never as a mix.
type way struct {
	name string
	fs   string // the only file system that has it

	// prepare makes what the way needs before there is a snapshot, and
	// returns what opens a file for a change. The file has waySize bytes, the
	// change is beyond wayAt.
	prepare func(r *rig) (open func(path string) (change func()))

	exact bool // nothing of it may be torn: events show it, or it is hot
	same  bool // it does not change the content

	// hidden ways are found out by the file's times alone, which tell nothing
	// any more once an ordinary change was let through. That they are torn
	// then cannot be told: the limit of the tripwire.
	hidden bool
}

const (
	wayPages = 128 // more than what is saved whole at once
	waySize  = wayPages * 4096
	wayAt    = 100 * 4096 // a change is after it
)

// tryWay changes files by what was opened before Prepare, after it, and after
// the instant; each time one that nobody else changes, and ones that somebody
// else writes to, or of which the attributes are set, before or after that.
func tryWay(t *testing.T, w way) {
	each(t, func(t *testing.T, r *rig) {
		if w.fs != "" && !strings.HasSuffix(t.Name(), "/"+w.fs) {
			return
		}
		r.must(os.Mkdir(r.path("ways"), 0o755))
		open := w.prepare(r)
		originals := map[string][]byte{}
		for i, when := range []string{"before", "between", "after"} {
			for k, also := range []string{"alone", "written", "chmod", "written-after", "chmod-after"} {
				if w.hidden && also == "written" {
					continue
				}
				name := "ways/" + when + "-" + also
				originals[name] = bytes.Repeat([]byte{byte('A' + 5*i + k)}, waySize)
				r.must(os.WriteFile(r.path(name), originals[name], 0o644))
			}
		}
		r.must(exec.Command("sync", "-f", r.dir).Run())
		changes := map[string]func(){}
		openAll := func(when string) {
			for name := range originals {
				if strings.HasPrefix(name, "ways/"+when) {
					changes[name] = open(r.path(name))
				}
			}
		}
		openAll("before")
		s := r.take(func() { openAll("between") })
		openAll("after")
		also := func(suffix string) {
			for name := range originals {
				switch {
				case !strings.HasSuffix(name, suffix):
				case strings.Contains(name, "-written"):
					r.writeAt(name, "WRITTEN", 0)
				case strings.Contains(name, "-chmod"):
					r.must(os.Chmod(r.path(name), 0o600))
				}
			}
		}
		also("-written")
		also("-chmod")
		time.Sleep(500 * time.Millisecond) // what is announced is looked at soon
		for _, change := range changes {
			change()
		}
		time.Sleep(20 * time.Millisecond) // times of inodes move with the kernel's tick
		also("-after")
		r.must(exec.Command("sync", "-f", r.dir).Run())
		for name, b := range originals {
			live, err := os.ReadFile(r.path(name))
			r.must(err)
			if changed := !bytes.Equal(live[min(len(live), wayAt):], b[wayAt:]); changed == w.same {
				t.Errorf("%s: was the live file changed? %t", name, changed)
			}
		}
		r.unmixed(s, originals, w.exact)
	})
}

// unmixed fails unless each file reads in the snapshot as it was, or, where
// not exactly so, cannot be read and is named.
func (r *rig) unmixed(s *target, originals map[string][]byte, exactly bool) {
	r.Helper()
	named := map[string]bool{}
	torn := 0
	for _, name := range slices.Sorted(maps.Keys(originals)) {
		b, err := os.ReadFile(filepath.Join(s.Root(), name))
		for _, g := range s.Gaps() {
			named[g.Path] = g.Code == problem.FileTorn || g.Code == problem.FileGone
		}
		switch {
		case err == nil && bytes.Equal(b, originals[name]):
		case err == nil:
			r.Errorf("%s is a mix: %s", name, pages(b))
		case exactly:
			r.Errorf("%s: %v", name, err)
		case !errors.Is(err, syscall.EBADMSG) && !errors.Is(err, syscall.ESTALE):
			r.Errorf("%s: %v", name, err)
		case !named[name]:
			r.Errorf("%s cannot be read and is not named", name)
		default:
			torn++
		}
	}
	r.must(s.Err())
	if torn > 0 {
		r.Logf("%d of %d files are torn or gone", torn, len(originals))
	}
}

// pages shows the first byte of each page from the last one before a change on.
func pages(b []byte) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d bytes ", len(b))
	for p := range slices.Chunk(b[min(len(b), wayAt-4096):], 4096) {
		s.WriteByte(max(p[0], '.'))
	}
	return s.String()
}

func (r *rig) writeAt(name, text string, at int64) {
	r.Helper()
	f, err := os.OpenFile(r.path(name), os.O_RDWR, 0)
	r.must(err)
	_, err = f.WriteAt([]byte(text), at)
	r.must(errors.Join(err, f.Close()))
}

// writes changes a file by a descriptor.
func (r *rig) writes(path string) func() {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	r.must(err)
	r.Cleanup(func() { f.Close() })
	return func() {
		_, err := f.WriteAt(bytes.Repeat([]byte("Z"), 8192), wayAt+4096)
		r.must(err)
	}
}

// stores changes a file through a mapping, whose descriptor is closed.
func (r *rig) stores(path string) func() {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	r.must(err)
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, waySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	r.must(err)
	r.Cleanup(func() { _ = unix.Munmap(m) })
	return func() {
		copy(m[wayAt+4096:], bytes.Repeat([]byte("Z"), 8192))
		r.must(unix.Msync(m, unix.MS_SYNC))
	}
}

// elsewhere is the same file below another mount of the volume.
func elsewhere(mount func(r *rig) string, do func(r *rig, path string) func()) func(*rig) func(string) func() {
	return func(r *rig) func(string) func() {
		point := mount(r)
		return func(path string) func() {
			rel, err := filepath.Rel(r.dir, path)
			r.must(err)
			return do(r, filepath.Join(point, rel))
		}
	}
}

// mounted runs mount(8), and umount(8) in the end.
func (r *rig) mounted(args ...string) string {
	r.Helper()
	point := r.TempDir()
	if out, err := exec.Command("mount", append(args, point)...).CombinedOutput(); err != nil {
		r.Fatalf("mount %v: %v: %s", args, err, out)
	}
	r.Cleanup(func() {
		if out, err := exec.Command("umount", point).CombinedOutput(); err != nil {
			r.Errorf("umount: %v: %s", err, out)
		}
	})
	return point
}

func TestWays(t *testing.T) {
	bind := func(r *rig) string { return r.mounted("--bind", r.dir) }
	second := func(r *rig) string { return r.mounted(r.target.Volume.Source) }
	for _, w := range []way{
		{name: "bind mount, write", exact: true, prepare: elsewhere(bind, (*rig).writes)},
		{name: "bind mount, store", exact: true, prepare: elsewhere(bind, (*rig).stores)},
		{name: "second mount, write", exact: true, prepare: elsewhere(second, (*rig).writes)},
		{name: "second mount, store", exact: true, prepare: elsewhere(second, (*rig).stores)},
		{name: "namespaces", exact: true, prepare: func(r *rig) func(string) func() { return r.inNamespaces }},
		{name: "descriptor opened again", exact: true, prepare: func(r *rig) func(string) func() { return r.reopened }},
		{name: "open by handle", exact: true, prepare: func(r *rig) func(string) func() { return r.byHandle }},
		{name: "move extents", fs: "ext4", exact: true, same: true, prepare: func(r *rig) func(string) func() { return r.movesExtents }},
		{name: "swap with the boot loader", fs: "ext4", prepare: func(r *rig) func(string) func() { return r.swapsBoot }},
		{name: "defragmented", fs: "xfs", exact: true, same: true, prepare: func(r *rig) func(string) func() { return r.reorganizes }},
	} {
		t.Run(w.name, func(t *testing.T) { tryWay(t, w) })
	}
}

// inNamespaces writes from a mount, user and process namespace, through a mount
// that is only there.
func (r *rig) inNamespaces(path string) func() {
	c := exec.Command("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec",
		`mount --bind "$1" "$2"; exec 3<>"$2/$3"; echo ready; read line; tr '\0' Z </dev/zero | dd bs=8192 count=1 iflag=fullblock oflag=seek_bytes seek=`+
			itoa(wayAt+4096)+` conv=notrunc status=none >&3; echo done`, "sh", filepath.Dir(path), r.TempDir(), filepath.Base(path))
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	r.must(err)
	out, err := c.StdoutPipe()
	r.must(err)
	r.must(c.Start())
	r.Cleanup(func() { in.Close(); _ = c.Process.Kill(); _ = c.Wait() })
	says := func(want string) {
		b := make([]byte, 100)
		if n, err := out.Read(b); string(b[:n]) != want+"\n" {
			r.Errorf("the process in namespaces says %q, want %s: %v", b[:n], want, err)
		}
	}
	says("ready")
	return func() {
		_, err := in.Write([]byte("\n"))
		r.must(err)
		says("done")
	}
}

// reopened opens a file for writing by the name that a descriptor for reading
// has in /proc.
func (r *rig) reopened(path string) func() {
	f, err := os.Open(path)
	r.must(err)
	defer f.Close()
	return r.writes(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

func (r *rig) byHandle(path string) func() {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	r.must(err)
	root, err := os.Open(r.dir)
	r.must(err)
	defer root.Close()
	fd, err := unix.OpenByHandleAt(int(root.Fd()), h, unix.O_RDWR|unix.O_CLOEXEC)
	r.must(err)
	f := os.NewFile(uintptr(fd), path)
	r.Cleanup(func() { f.Close() })
	return func() {
		_, err := f.WriteAt(bytes.Repeat([]byte("Z"), 8192), wayAt+4096)
		r.must(err)
	}
}

// movesExtents exchanges the blocks of a file as e4defrag(8) does.
func (r *rig) movesExtents(path string) func() {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	r.must(err)
	r.Cleanup(func() { f.Close() })
	donor, err := os.OpenFile(r.path("donor"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	r.must(err)
	r.Cleanup(func() { donor.Close() })
	return func() {
		r.must(donor.Truncate(0))
		r.must(unix.Fallocate(int(donor.Fd()), 0, 0, waySize))
		r.must(f.Sync())
		move := struct { // struct move_extent in fs/ext4/ext4.h
			_                           uint32
			donor                       uint32
			from, donorFrom, len, moved uint64
		}{donor: uint32(donor.Fd()), len: wayPages}
		const moveExtents = 0xc028660f // EXT4_IOC_MOVE_EXT
		waitFor(r.T, func() bool {     // EBUSY while the journal has pages of it
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), moveExtents, uintptr(unsafe.Pointer(&move)))
			return errno == 0 && move.moved > 0
		})
	}
}

// reorganizes moves the blocks of a file as xfs_fsr(8) does.
func (r *rig) reorganizes(path string) func() {
	return func() {
		// It leaves alone what lies in one piece.
		if out, err := exec.Command("xfs_fsr", "-v", path).CombinedOutput(); err != nil {
			r.Errorf("xfs_fsr: %v: %s", err, out)
		}
	}
}

// swapsBoot exchanges the content of a file with that of the boot loader's
// inode, together with size and mtime. The file gets another generation, so that
// its handle is no longer its.
func (r *rig) swapsBoot(path string) func() {
	const swapBoot = 0x6611 // EXT4_IOC_SWAP_BOOT
	swap := func(path string) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		r.must(err)
		defer f.Close()
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), swapBoot, 0); errno != 0 {
			r.Errorf("EXT4_IOC_SWAP_BOOT: %v", errno)
		}
	}
	return func() {
		other := r.path("boot")
		r.must(os.WriteFile(other, bytes.Repeat([]byte("Z"), waySize), 0o600))
		swap(other)
		swap(path)
	}
}

// Times and modes that are set change no content, in whichever order.
func TestTouched(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		originals := r.filled()
		s := r.take(nil)
		r.run("touch", r.path("file0"), r.path("file1"))
		r.must(os.Chmod(r.path("file2"), 0o600))
		time.Sleep(500 * time.Millisecond) // what is announced is looked at soon
		r.must(os.Chmod(r.path("file1"), 0o600))
		r.run("touch", r.path("file2"))
		r.run("touch", "--date=2001-02-03", r.path("file3"))
		r.unmixed(s, originals, true)
	})
}
