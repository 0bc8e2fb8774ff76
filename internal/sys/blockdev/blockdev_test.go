package blockdev

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stillpoint/internal/sys/thread"
)

// TestSuperblocks makes file systems and compares with what blkid says.
func TestSuperblocks(t *testing.T) {
	for _, c := range []struct {
		typ  string
		size int64
		mkfs []string
	}{
		{"ext", 8 << 20, []string{"mkfs.ext4", "-q", "-L", "sixteen letters!"}},
		{"ext", 8 << 20, []string{"mkfs.ext2", "-q", "-U", "clear"}},
		{"xfs", 320 << 20, []string{"mkfs.xfs", "-q", "-L", "twelve chars"}},
		{"btrfs", 128 << 20, []string{"mkfs.btrfs", "-q", "-L", "a long label with spaces"}},
		{"swap", 4 << 20, []string{"mkswap", "-q", "-L", "swap space"}},
		{"", 4 << 20, []string{"true"}},
		{"", 100, []string{"true"}},
		{"", 0, []string{"true"}},
	} {
		t.Run(strings.Join(c.mkfs, " "), func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "image")
			f, err := os.Create(image)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(c.size); err != nil {
				t.Fatal(err)
			}
			run(t, append(c.mkfs, image)...)
			s, err := ParseSuperblock(f)
			if err != nil {
				t.Fatal(err)
			}
			want := Superblock{Type: c.typ}
			if c.typ != "" {
				want.UUID, want.Label = blkid(image, "UUID"), blkid(image, "LABEL")
			}
			if s != want {
				t.Errorf("got %+v, want %+v", s, want)
			}
		})
	}
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// blkid is empty where there is no such tag.
func blkid(image, tag string) string {
	out, _ := exec.Command("blkid", "-p", "-o", "value", "-s", tag, image).Output()
	return strings.TrimSuffix(string(out), "\n")
}

// recorded reads testdata/recorded.txt.
func recorded(t *testing.T) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/recorded.txt")
	if err != nil {
		t.Fatal(err)
	}
	images := map[string][]byte{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var name, bytes string
		var off int
		if _, err := fmt.Sscan(line, &name, &off, &bytes); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		b, err := hex.DecodeString(bytes)
		if err != nil {
			t.Fatal(err)
		}
		if images[name] == nil {
			images[name] = make([]byte, 1<<20)
		}
		copy(images[name][off:], b)
	}
	return images
}

func TestFAT(t *testing.T) {
	images := recorded(t)
	for name, want := range map[string]Superblock{
		"f32": {"vfat", "5cdb-4a3e", "UEFI"},
		"f16": {"vfat", "0a0b-0c0d", ""},
		"f12": {"vfat", "1234-5678", "A LABEL"},
		"dos": {},
		"gpt": {},
	} {
		if s, err := ParseSuperblock(bytes.NewReader(images[name])); err != nil || s != want {
			t.Errorf("%s: got %+v, %v, want %+v", name, s, err, want)
		}
	}
}

func TestGPT(t *testing.T) {
	images := recorded(t)
	const esp, linux = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0fc63daf-8483-4772-8e79-3d69d8477de4"
	wide := make([]byte, 1<<20) // the same on a disk with blocks of 4 KiB
	copy(wide[4096:], images["gpt"][512:1024])
	copy(wide[8192:], images["gpt"][1024:1536])
	images["wide"] = wide
	for _, c := range []struct {
		image     string
		partition int
		want      string
	}{
		{"gpt", 1, esp}, {"gpt", 2, linux}, {"gpt", 3, ""}, {"gpt", 0, ""}, {"gpt", 129, ""}, {"gpt", -1, ""},
		{"wide", 1, esp}, {"wide", 2, linux}, {"dos", 1, ""}, {"f32", 1, ""}, {"none", 1, ""},
	} {
		if typ, err := ParseGPT(bytes.NewReader(images[c.image]), c.partition); err != nil || typ != c.want {
			t.Errorf("%s %d: got %q, %v, want %q", c.image, c.partition, typ, err, c.want)
		}
	}
	broken := bytes.Clone(images["gpt"])
	broken[512+84] = 1 // the size of an entry
	if typ, err := ParseGPT(bytes.NewReader(broken), 1); err == nil {
		t.Errorf("broken header: got %q", typ)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("XFSB"), 1)
	f.Add(append(make([]byte, 512), "EFI PART"...), 1)
	f.Fuzz(func(t *testing.T, b []byte, partition int) {
		_, _ = ParseSuperblock(bytes.NewReader(b))
		_, _ = ParseGPT(bytes.NewReader(b), partition)
	})
}

func TestLocate(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"a", "name (deleted)", "b/c"} {
		if err := os.MkdirAll(filepath.Join(dir, n), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../a/../b", filepath.Join(dir, "b/link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for in, want := range map[string]string{
		"/": "/", dir: dir, dir + "/b/link/c": dir + "/b/c", "b/link/c/../link": dir + "/b", ".": dir, "//" + dir + "//b/": dir + "/b",
		dir + "/name (deleted)": dir + "/name (deleted)", "/proc/self/root" + dir: dir,
	} {
		got, mount, err := Locate(in)
		if err != nil || got != want || mount == 0 {
			t.Errorf("%q: got %q, mount %d, %v, want %q", in, got, mount, err, want)
		}
	}
	for _, in := range []string{"", "none", "a/none", dir + "/name"} {
		if got, _, err := Locate(in); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}

	open, err := os.Open("b/c")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := os.Remove("b/c"); err != nil {
		t.Fatal(err)
	}
	deleted := fmt.Sprintf("/proc/self/fd/%d", open.Fd())
	if got, _, err := Locate(deleted); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a deleted directory: got %q, %v", got, err)
	}
	for _, name := range []string{"b/c", "b/c (deleted)"} { // another of that name
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
		if got, _, err := Locate(deleted); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a deleted directory beside %q: got %q, %v", name, got, err)
		}
	}
}

// TestLocateDeletedMount: the path of a bind mount stays what it is when the
// directory that shows there is deleted.
func TestLocateDeletedMount(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, d := range []string{from, to} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, to) })
	if err := os.Remove(from); err != nil {
		t.Fatal(err)
	}
	if got, _, err := Locate(to); err != nil || got != to {
		t.Errorf("got %q, %v", got, err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
}

func unmount(t *testing.T, path string) {
	t.Helper()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		t.Errorf("unmount %s: %v", path, err)
	}
}

func TestAsk(t *testing.T) {
	dir := t.TempDir()
	canonical, mount, err := Locate(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Ask(canonical, mount)
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if unit := uint64(st.Frsize); got.Size != st.Blocks*unit || got.Free == 0 || got.Free > got.Size || got.Used > got.Size {
		t.Errorf("got %+v, statfs %+v", got, st)
	}
	if _, err := Ask(dir, mount+1); !errors.Is(err, ErrOtherMount) {
		t.Errorf("another mount: got %v", err)
	}
	if _, err := Ask(filepath.Join(dir, "none"), mount); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such path: got %v", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Ask(fifo, mount); err != nil || got.Final { // must not be opened
		t.Errorf("fifo: got %+v, %v", got, err)
	}
}

func TestNoUUID(t *testing.T) {
	if s := formatUUID(make([]byte, 16)); s != "" {
		t.Errorf("got %q", s)
	}
	if s := formatUUID([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\xff")); s != "00010203-0405-0607-0809-0a0b0c0d0eff" {
		t.Errorf("got %q", s)
	}
}

// TestDevice reads a loop device, and refuses a node that is not the device
// that was meant.
func TestDevice(t *testing.T) {
	needRoot(t)
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, recorded(t)["gpt"], 0o600); err != nil {
		t.Fatal(err)
	}
	node := run(t, "losetup", "--find", "--show", "--read-only", image)
	t.Cleanup(func() { run(t, "losetup", "--detach", node) })
	number := strings.TrimSpace(run(t, "cat", "/sys/class/block/"+filepath.Base(node)+"/dev"))
	if typ, err := PartitionType(node, number, 2); err != nil || typ != "0fc63daf-8483-4772-8e79-3d69d8477de4" {
		t.Errorf("got %q, %v", typ, err)
	}
	if s, err := ReadSuperblock(node, number); err != nil || s != (Superblock{}) {
		t.Errorf("got %+v, %v", s, err)
	}
	for _, c := range [][2]string{{node, number + "1"}, {"/dev/null", "1:3"}, {image, number}, {"/dev/none", number}} {
		if _, err := ReadSuperblock(c[0], c[1]); err == nil {
			t.Errorf("%q was read", c)
		}
		if _, err := PartitionType(c[0], c[1], 1); err == nil {
			t.Errorf("%q was read", c)
		}
	}
}

// TestMountsChanged: each mount and unmount shows once.
func TestMountsChanged(t *testing.T) {
	needRoot(t)
	// In a thread with a namespace of its own, where nobody else mounts. It
	// ends with the test.
	done := make(chan error, 1)
	go thread.Apart(func() { done <- mountAndLook(t.TempDir()) })
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func mountAndLook(dir string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private: %w", err)
	}
	fd, err := unix.Open("/proc/thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for i, step := range []struct {
		do   func() error
		want bool
	}{
		{func() error { return nil }, false},
		{func() error { return unix.Mount("x", dir, "tmpfs", 0, "") }, true},
		{func() error { return nil }, false},
		{func() error { return unix.Unmount(dir, 0) }, true},
		{func() error { return nil }, false},
	} {
		if err := step.do(); err != nil {
			return err
		}
		got, err := mountsChanged(fd)
		if err != nil || got != step.want {
			return fmt.Errorf("step %d: got %v, %v", i, got, err)
		}
	}
	return nil
}

func TestReadMounts(t *testing.T) {
	want, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat(want, 500) // a regular file never changes
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, long, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadMounts(name); err != nil || !bytes.Equal(got, long) {
		t.Errorf("got %d bytes of %d, %v", len(got), len(long), err)
	}
	if _, err := ReadMounts(name + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
