//go:build vm

package lvm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"stillpoint/internal/fault"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/snapshottest"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

// A named provider is asked for volumes as where people have named it.
type named struct{ *Provider }

func (n named) Check(ctx context.Context, v volume.Volume) error {
	_, err := n.Named(ctx, v)
	return err
}

// newBare makes a group of so many MiB without a pool.
func newBare(tb testing.TB, size int) group {
	tb.Helper()
	scratch.NeedRoot(tb)
	dir, err := os.MkdirTemp("", "stillpoint-lvm-")
	if err != nil {
		tb.Fatal(err)
	}
	g := group{"sp" + strings.ToLower(filepath.Base(dir)[len("stillpoint-lvm-"):]), dir}
	image := dir + "/image"
	scratch.Run(tb, "truncate", "--size", fmt.Sprint(size, "M"), image)
	loop := strings.TrimSpace(scratch.Run(tb, "losetup", "--find", "--show", image))
	tb.Cleanup(func() {
		scratch.Run(tb, "vgremove", "--force", "--force", "--yes", "-q", "-q", g.name)
		scratch.Run(tb, "losetup", "--detach", loop)
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	scratch.Run(tb, "vgcreate", "--yes", "-q", "-q", g.name, loop)
	return g
}

// thick makes a mounted file system on a classic volume of so many MiB.
func (g group) thick(tb testing.TB, name, fs string, size int) snapshottest.Volume {
	tb.Helper()
	scratch.Run(tb, "lvcreate", "--yes", "-q", "-q", "-L", fmt.Sprint(size, "m"), "-n", name, g.name)
	v := g.mount(tb, name, fs)
	// udev does not watch dm devices: tell it that there is a file system now, which it
	// would notice when the volume gets another table.
	scratch.Run(tb, "udevadm", "trigger", "--action=change", "--settle", "/dev/"+g.name+"/"+name)
	return v
}

func thickHost(fs string) snapshottest.Host {
	h := suiteHost(fs)
	h.New = func(testing.TB) snapshot.Provider { return named{New(hostTable)} }
	h.Volumes = func(tb testing.TB, n int) (vs []snapshottest.Volume) {
		g := newBare(tb, 1600)
		for i := range n {
			vs = append(vs, g.thick(tb, fmt.Sprint("volume", i), fs, 400))
		}
		return vs
	}
	h.State = func(tb testing.TB, vs []snapshottest.Volume) string { return describeThick(tb, groupOf(vs[0])) }
	h.LookAlike = lookAlikeRoom
	h.Points = slices.Concat(fault.DM, []string{"lvm:room-made", "lvm:room-removed"})
	return h
}

// describeThick lists logical volumes, everything of device-mapper, and what udev has made
// of it. A guard may be at work meanwhile, so a device may go while it is looked at.
func describeThick(tb testing.TB, g group) string {
	tb.Helper()
	c, err := dm.Open()
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	scratch.Run(tb, "udevadm", "settle")
	all, err := c.List()
	if err != nil {
		tb.Fatal(err)
	}
	var lines []string
	for _, d := range all {
		if d, err := c.Status(d.Number); err == nil {
			table, _ := c.Table(d.Number)
			lines = append(lines, fmt.Sprintf("%s %q suspended %v, loaded %v: %v", d.Name, d.UUID, d.Suspended, d.Loaded, table))
		}
	}
	links, _ := filepath.Glob("/dev/disk/by-uuid/*")
	for _, l := range links {
		to, _ := os.Readlink(l)
		lines = append(lines, l+" "+to)
	}
	slices.Sort(lines)
	return scratch.Run(tb, "lvs", "-a", "--noheadings", "-o", "lv_name,lv_uuid,lv_attr,lv_size,lv_tags,thin_id", g.name) + strings.Join(lines, "\n")
}

// lookAlikeRoom makes a volume with our tags and a name such as ours.
func lookAlikeRoom(tb testing.TB, v snapshottest.Volume, id string) func() string {
	g := groupOf(v)
	name := namePrefix + id + roomInfix + "7"
	scratch.Run(tb, "lvcreate", "--yes", "-q", "-q", "-L", "16m", "-n", name, "--addtag", tagOurs, "--addtag", tagSet+id, g.name)
	look := func() string {
		return scratch.Run(tb, "lvs", "-o", "lv_uuid,lv_size,lv_active,lv_tags", g.name+"/"+name)
	}
	was := look()
	return func() string {
		if is := look(); is != was {
			return "is\n" + is + "and was\n" + was
		}
		return ""
	}
}

func TestSuiteThickExt4(t *testing.T) { snapshottest.Run(t, thickHost("ext4")) }
func TestSuiteThickXFS(t *testing.T)  { snapshottest.Run(t, thickHost("xfs")) }
