//go:build vm

package lvm

import (
	"context"
	"os"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/tool"
)

// In a group that lacks a disk LVM makes no volume, and that is known before.
func TestDiskMissing(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	image := g.dir + "/second"
	scratch.Run(t, "truncate", "--size", "64M", image)
	loop := strings.TrimSpace(scratch.Run(t, "losetup", "--find", "--show", image))
	t.Cleanup(func() { _, _ = tool.Run(context.Background(), "losetup", "--detach", loop) })
	scratch.Run(t, "vgextend", "--yes", "-q", g.name, loop)
	if err := New(hostTable).Check(t.Context(), v.Volume); err != nil {
		t.Error(err)
	}
	scratch.Run(t, "losetup", "--detach", loop)
	until(t, "the end of the disk", func() bool {
		return strings.Contains(scratch.Run(t, "vgs", "--noheadings", "-o", "vg_attr", g.name), "p")
	})
	err := New(hostTable).Check(t.Context(), v.Volume)
	scratch.Run(t, "vgreduce", "--removemissing", g.name)
	if problem.CodeOf(err) != problem.NoProvider || !strings.Contains(err.Error(), "missing") {
		t.Errorf("got %v, want no-provider", err)
	}
	if err := New(hostTable).Check(t.Context(), v.Volume); err != nil {
		t.Error(err)
	}
}

// A pool that lies in another pool, which may be full before it is.
func TestPoolInPool(t *testing.T) {
	outer := newGroup(t, 500)
	inner, under := group{outer.name + "in", outer.dir}, outer.name+"under"
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--thin", "-V", "400m", "-n", "lower", outer.name+"/pool")
	scratch.Run(t, "dmsetup", "create", under, "--table", "0 819200 linear /dev/"+outer.name+"/lower 0")
	t.Cleanup(func() { scratch.Run(t, "dmsetup", "remove", "--retry", under) })
	scratch.Run(t, "vgcreate", "--yes", "-q", "-q", inner.name, "/dev/mapper/"+under)
	t.Cleanup(func() { scratch.Run(t, "vgremove", "--force", "--force", "--yes", "-q", "-q", inner.name) })
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--type", "thin-pool", "-L", "200m", "-n", "pool", inner.name)
	v := inner.thin(t, "a", "ext4")
	if err := New(hostTable).Check(t.Context(), v.Volume); problem.CodeOf(err) != problem.NoProvider || !strings.Contains(err.Error(), "fill up") {
		t.Errorf("got %v, want no-provider", err)
	}
}

// XFS with its log on another device is refused before anything is made.
func TestLogElsewhere(t *testing.T) {
	g := newGroup(t, 500)
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "-L", "80m", "-n", "log", g.name)
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--thin", "-V", "400m", "-n", "a", g.name+"/pool")
	log, node, at := "/dev/"+g.name+"/log", "/dev/"+g.name+"/a", g.dir+"/a"
	scratch.Run(t, "mkfs.xfs", "-q", "-l", "logdev="+log, node)
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	scratch.Run(t, "mount", "-o", "logdev="+log, node, at)
	t.Cleanup(func() { scratch.Run(t, "umount", at) })
	v, _ := scratch.Find(t, at)
	if err := New(hostTable).Check(t.Context(), v); problem.CodeOf(err) != problem.NoProvider || !strings.Contains(err.Error(), "logdev=") {
		t.Errorf("got %v, want no-provider", err)
	}
	if _, err := New(hostTable).Prepare(t.Context(), "apart", []snapshot.Target{{Volume: v, Paths: []string{"."}}}); problem.CodeOf(err) != problem.NoProvider {
		t.Errorf("got %v, want no-provider", err)
	}
}
