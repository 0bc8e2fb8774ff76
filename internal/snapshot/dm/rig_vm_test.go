//go:build vm

package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/guard"
	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// These tests need device-mapper, which the host of the others need not have: they
// run in a virtual machine (doc/design/007), with the build tag "vm".

func TestMain(m *testing.M) {
	guard.Main(Duty())
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
	snaps, err := r.tryAll(r.vs[:1])
	if err != nil {
		return nil, err
	}
	return snaps[0], nil
}

// tryAll takes a set.
func (r *rig) tryAll(vs []snapshottest.Volume) ([]snapshot.Snapshot, error) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	serial++
	var ts []snapshot.Target
	for _, v := range vs {
		ts = append(ts, snapshot.Target{Volume: v.Volume, Paths: []string{"."}})
	}
	pending, err := r.p.Prepare(ctx, fmt.Sprint("test", serial), ts)
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
		return nil, errors.Join(err, pending.Abort(context.Background()))
	}
	for _, s := range snaps {
		r.Cleanup(func() { _ = s.Release(context.Background()) })
	}
	return snaps, nil
}

// take takes a snapshot. A machine with too much to do may need several tries until
// it has frozen the volume in time.
func (r *rig) take() snapshot.Snapshot {
	r.Helper()
	return r.takeAll(r.vs[:1])[0]
}

func (r *rig) takeAll(vs []snapshottest.Volume) []snapshot.Snapshot {
	r.Helper()
	snaps, err := r.tryAll(vs)
	for range 10 {
		if problem.CodeOf(err) != problem.FreezeBlocked {
			break
		}
		snaps, err = r.tryAll(vs)
	}
	r.must(err)
	return snaps
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
