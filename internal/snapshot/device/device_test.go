package device

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/sys/freeze"
)

// What was written, and synced or not, is there in the copy of a frozen file
// system, beside the mounted origin; and the copy is as it was, bit for bit.
func TestFrozen(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			c := newCopy(t, fs, true)
			before := c.sum(t)
			s := c.show(t, Source{FSType: fs, Frozen: true})
			want(t, s.Root(), "synced", "dirty")
			restrictions(t, s.Root())
			if err := errors.Join(s.Close(), s.Close()); err != nil {
				t.Fatal(err)
			}
			if c.sum(t) != before {
				t.Error("the device was written")
			}
		})
	}
}

// A file system that is read-only, with a journal in use, was made so by an error.
func TestUnreplayed(t *testing.T) {
	v := scratch.New(t, "ext4", 64<<20)
	number, err := os.ReadFile("/sys/block/" + filepath.Base(v.Devices[0]) + "/dev")
	if err != nil {
		t.Fatal(err)
	}
	d := Device{v.Devices[0], strings.TrimSpace(string(number))}
	is := func(options ...string) bool {
		t.Helper()
		is, err := Unreplayed("ext4", options, d)
		if err != nil {
			t.Error(err)
		}
		return is
	}
	if is("rw") {
		t.Error("one that is written")
	}
	if !is("ro", "errors=remount-ro") {
		t.Error("not one that had an error")
	}
	scratch.Run(t, "mount", "-o", "remount,ro", v.Dir)
	if is("ro") {
		t.Error("one that was made read-only")
	}
	scratch.Run(t, "mount", "-o", "remount,rw", v.Dir)
	if !is("ro") {
		t.Error("not one that was written again, and had an error then")
	}
}

// A journal that is not empty is replayed in a layer, and never on the device.
func TestReplayed(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			c := newCopy(t, fs, false)
			before := c.sum(t)
			_, err := Show(t.Context(), Source{Device: c.Device, FSType: fs})
			if !problem.Is(err, problem.SnapshotFailed) {
				t.Fatalf("without a layer: %v, want snapshot-failed", err)
			}
			l := &layer{}
			s := c.show(t, Source{FSType: fs, Layer: func(context.Context, Device) (Layer, error) {
				l.device = loop(t, c.image+".layer", c.image, false)
				return l, nil
			}})
			want(t, s.Root(), "synced")
			restrictions(t, s.Root())
			if err := s.Close(); err != nil || !l.closed {
				t.Errorf("closed: %v, the layer: %v", err, l.closed)
			}
			if c.sum(t) != before {
				t.Error("the device was written")
			}
			if same(t, c.image, c.image+".layer") {
				t.Error("nothing was replayed: this test proves nothing")
			}
		})
	}
}

// ext4 is not believed to be frozen when it says otherwise.
func TestClaimedFrozen(t *testing.T) {
	c := newCopy(t, "ext4", false)
	_, err := Show(t.Context(), Source{Device: c.Device, FSType: "ext4", Frozen: true})
	if !problem.Is(err, problem.SnapshotFailed) {
		t.Errorf("got %v, want snapshot-failed", err)
	}
}

// What cannot be shown is refused.
func TestRefused(t *testing.T) {
	c := newCopy(t, "ext4", true)
	writable := loop(t, c.image+".writable", c.image, false)
	for name, r := range map[string]struct {
		src  Source
		says string
	}{
		"a device that can be written": {Source{Device: writable, FSType: "ext4", Frozen: true}, "can be written"},
		"another number":               {Source{Device: Device{c.Node, "7:9999"}, FSType: "ext4", Frozen: true}, "is not the block device"},
		"no device":                    {Source{Device: Device{"/dev/null", "1:3"}, FSType: "ext4", Frozen: true}, "is not the block device"},
		"btrfs":                        {Source{Device: c.Device, FSType: "btrfs", Frozen: true}, "cannot be shown beside it"},
		"another file system":          {Source{Device: c.Device, FSType: "xfs", Frozen: true}, ""},
	} {
		s, err := Show(t.Context(), r.src)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), r.says) {
			t.Errorf("%s: %v, want %q", name, err, r.says)
		}
	}
	if err := Check("btrfs"); !problem.Is(err, problem.NoProvider) {
		t.Errorf("btrfs: %v, want no-provider", err)
	}
}

// A copied is a read-only device with the copy of a file system that is mounted.
type copied struct {
	Device
	image string
}

// newCopy copies a file system that has a file that was synced, and one that was
// not: while it is frozen, or as a power cut leaves it.
func newCopy(t *testing.T, fs string, frozen bool) copied {
	t.Helper()
	size := int64(64 << 20)
	if fs == "xfs" {
		size = 320 << 20
	}
	v := scratch.New(t, fs, size)
	put(t, filepath.Join(v.Dir, "synced"), true)
	put(t, filepath.Join(v.Dir, "dirty"), false)
	dir, err := os.Open(v.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if frozen {
		if err := freeze.Freeze(dir); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := freeze.Thaw(dir); err != nil {
				t.Error(err)
			}
		}()
	}
	image := filepath.Join(t.TempDir(), "image")
	return copied{loop(t, image, v.Devices[0], true), image}
}

func put(t *testing.T, name string, sync bool) {
	t.Helper()
	f, err := os.Create(name)
	if err == nil {
		_, err = f.WriteString(filepath.Base(name))
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// loop makes a loop device of a copy.
func loop(t *testing.T, image, from string, fixed bool) Device {
	t.Helper()
	// Not through the cache of the device, which may have older blocks than the
	// file system has written.
	scratch.Run(t, "dd", "if="+from, "of="+image, "bs=1M", "iflag=direct", "conv=sparse", "status=none")
	args := []string{"--find", "--show", image}
	if fixed {
		args = append([]string{"--read-only"}, args...)
	}
	node := strings.TrimSpace(scratch.Run(t, "losetup", args...))
	t.Cleanup(func() { scratch.Run(t, "losetup", "--detach", node) })
	number, err := os.ReadFile("/sys/block/" + filepath.Base(node) + "/dev")
	if err != nil {
		t.Fatal(err)
	}
	return Device{node, strings.TrimSpace(string(number))}
}

func (c copied) sum(t *testing.T) string {
	return scratch.Run(t, "sha256sum", c.image)
}

func (c copied) show(t *testing.T, src Source) *Shown {
	t.Helper()
	src.Device = c.Device
	s, err := Show(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func want(t *testing.T, root string, names ...string) {
	t.Helper()
	for _, name := range names {
		if b, err := os.ReadFile(filepath.Join(root, name)); string(b) != name {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

func restrictions(t *testing.T, root string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, "new"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing: %v, want EROFS", err)
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || bytes.Contains(b, []byte("norecovery")) {
		t.Errorf("the mount can be seen: %v", err)
	}
}

func same(t *testing.T, a, b string) bool {
	t.Helper()
	one, err := os.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	two, err := os.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(one, x)
		m, _ := io.ReadFull(two, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false
		}
		if err != nil {
			return true
		}
	}
}

// A layer is a copy, which a test can afford.
type layer struct {
	device Device
	closed bool
}

func (l *layer) Device() Device { return l.device }

func (l *layer) Close() error {
	l.closed = true
	return nil
}
