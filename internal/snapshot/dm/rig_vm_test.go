//go:build vm

package dm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/guard"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// These tests need device-mapper, which the host of the others need not have: they
// run in a virtual machine (doc/design/007), with the build tag "vm".

func TestMain(m *testing.M) {
	guard.Main()
	os.Exit(m.Run())
}

func host(ctx context.Context) (*volume.Table, error) { return volume.Read(ctx, volume.Host()) }

// control is the kernel's device-mapper, which fails the test where there is none.
func control(tb testing.TB) *dm.Control {
	tb.Helper()
	c, err := dm.Open()
	if err != nil {
		tb.Fatalf("these tests need device-mapper: %v", err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

// run runs a program of the rig, and once more where something has a device open
// only to look at it, as udev does.
func run(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	return strings.TrimSpace(scratch.Run(tb, name, args...))
}

// undo runs a program at the end of the test, until it succeeds.
func undo(tb testing.TB, name string, args ...string) {
	tb.Cleanup(func() {
		var out string
		for range 100 {
			o, err := runQuietly(name, args...)
			if err == nil {
				return
			}
			out = o
			time.Sleep(50 * time.Millisecond)
		}
		tb.Errorf("%s %v: %s", name, args, out)
	})
}

// disk makes a block device of so many MiB.
func disk(tb testing.TB, dir, name string, size int64) string {
	tb.Helper()
	file := filepath.Join(dir, name)
	f, err := os.Create(file)
	if err == nil {
		err = f.Truncate(size << 20)
	}
	if err != nil {
		tb.Fatal(err)
	}
	f.Close()
	node := run(tb, "losetup", "--find", "--show", file)
	undo(tb, "losetup", "--detach", node)
	return node
}

// A kind makes n devices of device-mapper, each of so many MiB.
type kind func(tb testing.TB, dir string, n int, size int64) (nodes []string)

var serial int

// name is of a device, volume group or logical volume that the test makes.
func name(what string) string {
	serial++
	return fmt.Sprintf("test%d%s%d", os.Getpid(), what, serial)
}

// plain are linear devices with nothing around them.
func plain(tb testing.TB, dir string, n int, size int64) (nodes []string) {
	c := control(tb)
	for range n {
		id := name("plain")
		over := disk(tb, dir, id, size)
		b, err := os.ReadFile("/sys/block/" + filepath.Base(over) + "/dev")
		if err != nil {
			tb.Fatal(err)
		}
		d, err := c.Create(id, "")
		if err == nil {
			tb.Cleanup(func() {
				if err := removeDevice(c, d); err != nil {
					tb.Error(err)
				}
			})
			err = c.Load(d.Number, []dm.Target{{Length: uint64(size) << 11, Type: "linear", Params: strings.TrimSpace(string(b)) + " 0"}}, false)
		}
		if err == nil {
			err = c.Resume(d.Number, 0)
		}
		if err != nil {
			tb.Fatal(err)
		}
		nodes = append(nodes, d.Node())
	}
	return nodes
}

// group makes a volume group on so many disks.
func group(tb testing.TB, dir string, disks int, size int64) string {
	vg := name("vg")
	var pvs []string
	for i := range disks {
		pvs = append(pvs, disk(tb, dir, fmt.Sprintf("%s-%d", vg, i), size))
	}
	run(tb, "vgcreate", append([]string{"-q", "--yes", vg}, pvs...)...)
	undo(tb, "vgremove", "-q", "--force", "--yes", vg)
	return vg
}

func lv(tb testing.TB, vg string, args ...string) string {
	id := "lv-" + name("v")
	run(tb, "lvcreate", append([]string{"-q", "--yes", "--wipesignatures", "n", "--name", id}, append(args, vg)...)...)
	return "/dev/" + vg + "/" + id
}

// linear are logical volumes; there is no free extent left in their group.
func linear(tb testing.TB, dir string, n int, size int64) (nodes []string) {
	vg := group(tb, dir, 1, int64(n)*size+4)
	for range n {
		nodes = append(nodes, lv(tb, vg, "--size", fmt.Sprint(size, "m")))
	}
	return nodes
}

func striped(tb testing.TB, dir string, n int, size int64) (nodes []string) {
	vg := group(tb, dir, 2, int64(n)*size/2+16)
	for range n {
		nodes = append(nodes, lv(tb, vg, "--stripes", "2", "--size", fmt.Sprint(size, "m")))
	}
	return nodes
}

// luks are containers on logical volumes, with their keys in the table.
func luks(tb testing.TB, dir string, n int, size int64) (nodes []string) {
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("secret"), 0o600); err != nil {
		tb.Fatal(err)
	}
	for _, over := range linear(tb, dir, n, size+16) {
		nodes = append(nodes, opened(tb, over, key, "--disable-keyring"))
	}
	return nodes
}

func opened(tb testing.TB, over, key string, args ...string) string {
	id := name("luks")
	run(tb, "cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", over, key)
	run(tb, "cryptsetup", append([]string{"open", "--key-file", key, over, id}, args...)...)
	undo(tb, "cryptsetup", "close", id)
	return "/dev/mapper/" + id
}

func thin(tb testing.TB, dir string, n int, size int64) (nodes []string) {
	vg := group(tb, dir, 1, int64(n)*size+128)
	pool := name("pool")
	run(tb, "lvcreate", "-q", "--yes", "--type", "thin-pool", "--name", pool, "--size", fmt.Sprint(int64(n)*size+32, "m"), "--poolmetadatasize", "8m", vg)
	for range n {
		id := name("v")
		run(tb, "lvcreate", "-q", "--yes", "--type", "thin", "--thinpool", pool, "--name", id, "--virtualsize", fmt.Sprint(size, "m"), vg)
		nodes = append(nodes, "/dev/"+vg+"/"+id)
	}
	return nodes
}

// volumes makes mounted file systems on devices of a kind.
func volumes(tb testing.TB, k kind, fs string, n int, size int64) (vs []snapshottest.Volume) {
	tb.Helper()
	base, err := os.MkdirTemp("", "stillpoint-dm-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(base) })
	for i, node := range k(tb, base, n, size) {
		switch fs {
		case "ext4":
			run(tb, "mkfs.ext4", "-q", node)
		case "xfs":
			run(tb, "mkfs.xfs", "-q", "-f", node)
		}
		dir := filepath.Join(base, fmt.Sprint("mount", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			tb.Fatal(err)
		}
		run(tb, "mount", node, dir)
		undo(tb, "umount", dir)
		found, _ := scratch.Find(tb, dir)
		vs = append(vs, snapshottest.Volume{Dir: dir, Volume: found})
	}
	return vs
}

// describe is everything of device-mapper, and the loop devices over files that
// have no name.
func describe(tb testing.TB, _ []snapshottest.Volume) string {
	tb.Helper()
	c := control(tb)
	look := func() string {
		all, err := c.List()
		if err != nil {
			tb.Fatal(err)
		}
		var lines []string
		for _, d := range all {
			d, err := c.Status(d.Number)
			if err != nil {
				continue
			}
			table, _ := c.Table(d.Number)
			lines = append(lines, fmt.Sprintf("%s %q suspended %v, loaded %v: %v", d.Name, d.UUID, d.Suspended, d.Loaded, table))
		}
		loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
		for _, l := range loops {
			if file, err := os.ReadFile(l); err == nil && strings.Contains(string(file), "(deleted)") {
				lines = append(lines, l+" "+string(file))
			}
		}
		slices.Sort(lines)
		return strings.Join(lines, "\n") + "\n"
	}
	// A loop device ends a moment after its last user.
	is := look()
	for began := time.Now(); strings.Contains(is, "(deleted)") && time.Since(began) < 2*time.Second; is = look() {
		time.Sleep(10 * time.Millisecond)
	}
	return is
}

// A rig is one volume and a provider.
type rig struct {
	*testing.T
	vs []snapshottest.Volume
	p  snapshot.Provider
}

func newRig(t *testing.T, k kind, fs string) *rig {
	return &rig{t, volumes(t, k, fs, 1, 400), New(host)}
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.vs[0].Dir, name) }

func (r *rig) try() (snapshot.Snapshot, error) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	serial++
	pending, err := r.p.Prepare(ctx, fmt.Sprint("test", serial), []snapshot.Target{{Volume: r.vs[0].Volume, Paths: []string{"."}}})
	if err != nil {
		return nil, err
	}
	r.Cleanup(func() { _ = pending.Abort(context.Background()) })
	err = pending.Hold(ctx)
	var snaps []snapshot.Snapshot
	if err == nil {
		snaps, err = pending.Commit(ctx)
	}
	if rerr := pending.Resume(ctx); err == nil {
		err = rerr
	}
	if err != nil {
		return nil, err
	}
	r.Cleanup(func() { _ = snaps[0].Release(context.Background()) })
	return snaps[0], nil
}

func (r *rig) take() snapshot.Snapshot {
	r.Helper()
	s, err := r.try()
	r.must(err)
	return s
}

// await waits until something is so.
func (r *rig) await(what string, is func() bool) {
	r.Helper()
	for began := time.Now(); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			r.Fatalf("it never came: %s", what)
		}
	}
}
