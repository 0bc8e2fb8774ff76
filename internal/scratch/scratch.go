// Package scratch gives tests real file systems on loop devices. What it makes
// is gone when the test ends, also when the test fails, hangs or is killed: a
// janitor process waits for the end of the test's own, and what both left, for
// they were killed together, goes with the next volume. It complains when a test
// leaves a volume in use. It knows how to format, mount and clean up, and
// nothing of what is tested.
package scratch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/tool"
	"stillpoint/internal/volume"
)

// A Volume is a mounted scratch file system.
type Volume struct {
	Dir     string   // where it is mounted
	Devices []string // what it lies on: "/dev/loop0"

	fsType  string
	base    string // holds the images and all mount points
	mounts  int
	janitor janitor
}

// An Option changes how a volume is made.
type Option func(*options)

type options struct {
	devices int
	format  []string
	mount   string
}

// Devices spreads the file system over n devices of the same size (btrfs).
func Devices(n int) Option { return func(o *options) { o.devices = n } }

// Format adds arguments to mkfs.
func Format(args ...string) Option { return func(o *options) { o.format = args } }

// MountOptions are what mount -o gets.
func MountOptions(list string) Option { return func(o *options) { o.mount = list } }

// Sizes in bytes; the least that works is 128 MiB for btrfs, 320 for XFS and
// some for ext4.
const (
	MiB = 1 << 20
	GiB = 1 << 30
)

// NeedRoot skips a test that cannot work without root. Nothing else is a
// reason to skip: what the machine lacks fails the test.
func NeedRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("skipped: scratch volumes need root, and this is not root")
	}
}

// New makes a file system of the type "btrfs", "ext4" or "xfs" on one loop
// device of so many bytes, and mounts it.
func New(tb testing.TB, fsType string, size int64, opts ...Option) *Volume {
	tb.Helper()
	NeedRoot(tb)
	o := options{devices: 1}
	for _, opt := range opts {
		opt(&o)
	}
	sweep(tb)
	base, err := os.MkdirTemp("", prefix)
	if err != nil {
		tb.Fatal(err)
	}
	v := &Volume{fsType: fsType, base: base, janitor: startJanitor(tb, base)}
	tb.Cleanup(func() {
		v.remove(tb)
		v.janitor.stop(tb)
	})
	for i := range o.devices {
		v.Devices = append(v.Devices, v.device(tb, i, size))
	}
	format(tb, fsType, o.format, v.Devices)
	v.Dir = v.Mount(tb, o.mount)
	return v
}

// Mount mounts the volume once more, with mount's options, and returns where.
func (v *Volume) Mount(tb testing.TB, mountOptions string) string {
	tb.Helper()
	dir := v.point(tb)
	args := []string{"-t", v.fsType}
	if mountOptions != "" {
		args = append(args, "-o", mountOptions)
	}
	Run(tb, "mount", append(args, v.Devices[0], dir)...)
	return dir
}

// Bind mounts a directory or a file of the volume once more, and returns where.
func (v *Volume) Bind(tb testing.TB, path string) string {
	tb.Helper()
	dir := v.point(tb)
	Run(tb, "mount", "--bind", path, dir)
	return dir
}

func (v *Volume) point(tb testing.TB) string {
	tb.Helper()
	dir := filepath.Join(v.base, fmt.Sprintf("mount%d", v.mounts))
	v.mounts++
	if err := os.Mkdir(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// Find returns the volume that shows path, as the host describes it now, and
// the path within it.
func Find(tb testing.TB, path string) (v volume.Volume, rel string) {
	tb.Helper()
	t, err := volume.Read(tb.Context(), volume.Host())
	if err != nil {
		tb.Fatal(err)
	}
	v, _, rel, err = t.Find(path)
	if err != nil {
		tb.Fatal(err)
	}
	return v, rel
}

// Run runs a program that must succeed, and returns what it printed.
func Run(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	out, err := tool.Run(context.Background(), name, args...)
	if err != nil {
		tb.Fatal(err)
	}
	return string(out)
}

func (v *Volume) device(tb testing.TB, i int, size int64) string {
	tb.Helper()
	image := filepath.Join(v.base, fmt.Sprintf("image%d", i))
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		tb.Fatal(err)
	}
	return strings.TrimSpace(Run(tb, "losetup", "--find", "--show", image))
}

func format(tb testing.TB, fsType string, args, devices []string) {
	tb.Helper()
	quiet := map[string][]string{
		"btrfs": {"-q", "-f"},
		"ext4":  {"-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"},
		"xfs":   {"-q", "-f"},
	}[fsType]
	Run(tb, "mkfs."+fsType, slices.Concat(quiet, args, devices)...)
}

// remove unmounts and detaches everything, and fails the test when the volume
// was still in use, by a process or by a mount in another namespace.
func (v *Volume) remove(tb testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, point := range mountsBelow(v.base) {
		if _, err := tool.Run(ctx, "umount", point); err != nil {
			tb.Errorf("scratch: the volume is in use: %v", err)
			_, _ = tool.Run(ctx, "umount", "--lazy", point)
		}
	}
	for _, d := range v.Devices {
		if _, err := tool.Run(ctx, "losetup", "--detach", d); err != nil {
			tb.Errorf("scratch: %v", err)
		}
		v.waitDetached(tb, d)
	}
	if left := mountsBelow(v.base); len(left) > 0 {
		tb.Errorf("scratch: still mounted: %v", left)
		return
	}
	if err := os.RemoveAll(v.base); err != nil {
		tb.Errorf("scratch: %v", err)
	}
}

// waitDetached waits until a loop device has let go of its image. It does so
// when the last mount of it is gone, wherever that was.
func (v *Volume) waitDetached(tb testing.TB, device string) {
	backing := "/sys/block/" + filepath.Base(device) + "/loop/backing_file"
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(backing)
		if err != nil || !strings.HasPrefix(string(b), v.base+"/") {
			return
		}
		if time.Now().After(end) {
			tb.Errorf("scratch: %s is still in use: something keeps the volume mounted (%s)", device, keepers(device))
			return
		}
	}
}

// mountsBelow lists the mount points below dir, the latest mounts first.
func mountsBelow(dir string) []string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var points []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, f[4]) // our own names need no unescaping
		}
	}
	slices.Reverse(points)
	return points
}
