//go:build vm

package lvm

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/tool"
)

// A group, or the origin, gets another name while there is a snapshot: that is
// good all the same, and removed.
func TestRenamed(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	if err := os.WriteFile(v.Dir+"/file", []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	places := func() string {
		return scratch.Run(t, "lvs", "--noheadings", "-o", "vg_name,lv_name", "-S", "lv_name=~^"+namePrefix)
	}
	// udev does not watch dm devices: tell it that there is a file system now.
	scratch.Run(t, "udevadm", "trigger", "--action=change", "--settle", "/dev/"+g.name+"/a")
	link := func() string {
		scratch.Run(t, "udevadm", "settle")
		to, _ := os.Readlink("/dev/disk/by-uuid/" + v.Volume.UUID)
		return to
	}
	before := link()
	if before == "" {
		t.Fatal("there is no link by UUID")
	}
	for _, one := range []struct {
		what   string
		shown  bool
		change []string
		back   []string
	}{
		{"group renamed", true, []string{"vgrename", g.name, g.name + "new"}, []string{"vgrename", g.name + "new", g.name}},
		{"group renamed early", false, []string{"vgrename", g.name, g.name + "new"}, []string{"vgrename", g.name + "new", g.name}},
		{"origin renamed", true, []string{"lvrename", g.name + "/a", g.name + "/b"}, []string{"lvrename", g.name + "/b", g.name + "/a"}},
		{"group refreshed", true, []string{"vgchange", "--refresh", g.name}, []string{"true"}},
	} {
		s := take(t, New(), "renamed", v)[0]
		if one.shown {
			if err := s.Err(); err != nil {
				t.Error(err)
			}
			d := s.(*target).devices // which is not to be made anew all the time
			if table, err := s.(*target).set.control.Table(d.lower.Number); err != nil || !slices.Equal(table, d.blank) {
				t.Errorf("%+v, want %+v; %v", table, d.blank, err)
			}
		}
		scratch.Run(t, one.change[0], one.change[1:]...)
		if one.shown { // LVM has shown it to udev, for as long as nobody has noticed
			d := s.(*target).devices
			until(t, "the hiding of the snapshot", func() bool {
				return !strings.Contains(scratch.Run(t, "dmsetup", "table", "-u", d.lower.UUID), "thin") && link() == before
			})
		}
		if now := link(); now != before {
			t.Errorf("%s: the file system is %s, and was %s", one.what, now, before)
		}
		if b, err := os.ReadFile(s.Root() + "/file"); err != nil || string(b) != "before" {
			t.Errorf("%s: %q, %v", one.what, b, err)
		}
		if err := s.Err(); err != nil {
			t.Errorf("%s: %v", one.what, err)
		}
		if err := s.Release(t.Context()); err != nil {
			t.Errorf("%s: %v", one.what, err)
		}
		scratch.Run(t, one.back[0], one.back[1:]...)
		if left := strings.TrimSpace(places()); left != "" {
			t.Errorf("%s: %s is left", one.what, left)
		}
	}
}

// What is suspended for a moment, as by who changes it, is waited for.
func TestBriefly(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	for _, name := range []string{g.name + "-a", g.name + "-pool-tpool"} {
		scratch.Run(t, "dmsetup", "suspend", "--noflush", name)
		resumed := make(chan error, 1)
		go func() {
			time.Sleep(brief / 10)
			_, err := tool.Run(context.Background(), "dmsetup", "resume", name)
			resumed <- err
		}()
		err := New().Check(t.Context(), v.Volume)
		if rerr := <-resumed; err != nil || rerr != nil {
			t.Errorf("%s: %v, %v", name, err, rerr)
		}
	}
	// What stays so is said, and LVM not asked, wherever below the volume it is.
	below := g.name + "-pool_tdata"
	scratch.Run(t, "dmsetup", "suspend", "--noflush", below)
	err := (&Provider{console: consoleOf(func(context.Context, string, ...string) ([]byte, error) {
		t.Error("LVM was asked")
		return nil, context.Canceled
	})}).Check(t.Context(), v.Volume)
	scratch.Run(t, "dmsetup", "resume", below)
	if problem.CodeOf(err) != problem.DeviceSuspended || !strings.Contains(err.Error(), below) {
		t.Errorf("got %v, want device-suspended", err)
	}
}

// Where there is no thin pool, or none active, LVM is not asked for leftovers.
func TestUnasked(t *testing.T) {
	asked := 0
	c := newConsole()
	run := c.run
	c.run = func(ctx context.Context, name string, args ...string) ([]byte, error) {
		asked++
		return run(ctx, name, args...)
	}
	look := func(want int) {
		t.Helper()
		asked = 0
		left, err := (&Provider{console: c}).Leftovers(t.Context())
		if len(left) != 0 || err != nil || asked != want {
			t.Errorf("LVM was asked %d times, want %d; %v, %v", asked, want, left, err)
		}
	}
	look(0)
	g := newGroup(t, 300)
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--thin", "-V", "16m", "-n", "a", g.name+"/pool")
	began := time.Now()
	look(1)
	t.Logf("with a pool: %v", time.Since(began))
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "-L", "16m", "-n", "thick", g.name)
	scratch.Run(t, "lvchange", "-an", g.name+"/a", g.name+"/pool")
	began = time.Now()
	look(0)
	t.Logf("without: %v", time.Since(began))
	scratch.Run(t, "lvchange", "-ay", g.name+"/pool") // and not the volume in it
	look(1)
}

// In a group that lacks a disk LVM makes no volume, and that is known before.
func TestDiskMissing(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	image := g.dir + "/second"
	scratch.Run(t, "truncate", "--size", "64M", image)
	loop := strings.TrimSpace(scratch.Run(t, "losetup", "--find", "--show", image))
	t.Cleanup(func() { _, _ = tool.Run(context.Background(), "losetup", "--detach", loop) })
	scratch.Run(t, "vgextend", "--yes", "-q", g.name, loop)
	if err := New().Check(t.Context(), v.Volume); err != nil {
		t.Error(err)
	}
	scratch.Run(t, "losetup", "--detach", loop)
	until(t, "the end of the disk", func() bool {
		return strings.Contains(scratch.Run(t, "vgs", "--noheadings", "-o", "vg_attr", g.name), "p")
	})
	err := New().Check(t.Context(), v.Volume)
	scratch.Run(t, "vgreduce", "--removemissing", g.name)
	if problem.CodeOf(err) != problem.NoProvider || !strings.Contains(err.Error(), "missing") {
		t.Errorf("got %v, want no-provider", err)
	}
	if err := New().Check(t.Context(), v.Volume); err != nil {
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
	if err := New().Check(t.Context(), v.Volume); problem.CodeOf(err) != problem.NoProvider || !strings.Contains(err.Error(), "fill up") {
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
	if err := New().Check(t.Context(), v); problem.CodeOf(err) != problem.NoProvider || !strings.Contains(err.Error(), "logdev=") {
		t.Errorf("got %v, want no-provider", err)
	}
	if _, err := New().Prepare(t.Context(), "apart", []snapshot.Target{{Volume: v, Paths: []string{"."}}}); problem.CodeOf(err) != problem.NoProvider {
		t.Errorf("got %v, want no-provider", err)
	}
}

// A command hangs on a disk that does not answer, and when that answers again, the
// snapshot that could not be removed is removed.
func TestHangs(t *testing.T) {
	g := newGroup(t, 300)
	v := g.thin(t, "a", "ext4")
	image, under := g.dir+"/second", g.name+"under"
	scratch.Run(t, "truncate", "--size", "64M", image)
	loop := strings.TrimSpace(scratch.Run(t, "losetup", "--find", "--show", image))
	t.Cleanup(func() { scratch.Run(t, "losetup", "--detach", loop) })
	scratch.Run(t, "dmsetup", "create", under, "--table", "0 129024 linear "+loop+" 2048") // not at its beginning: it would look like the disk itself
	t.Cleanup(func() { scratch.Run(t, "dmsetup", "remove", "--retry", under) })
	scratch.Run(t, "vgextend", "--yes", "-q", g.name, "/dev/mapper/"+under)
	t.Cleanup(func() { scratch.Run(t, "vgreduce", "--yes", "-q", g.name, "/dev/mapper/"+under) })

	c := newConsole()
	c.patience = 2 * time.Second
	p := &Provider{console: c}
	s := take(t, p, "hangs", v)[0]
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	scratch.Run(t, "dmsetup", "suspend", under)
	resume := func() { _, _ = tool.Run(context.Background(), "dmsetup", "resume", under) }
	defer resume()
	if err := s.Release(t.Context()); problem.CodeOf(err) != problem.LVMStuck {
		t.Errorf("got %v, want lvm-stuck", err)
	}
	began := time.Now()
	if err := p.Check(t.Context(), v.Volume); problem.CodeOf(err) != problem.LVMStuck || time.Since(began) > time.Second {
		t.Errorf("after %v: %v, want lvm-stuck at once", time.Since(began), err)
	}
	if err := os.WriteFile(v.Dir+"/meanwhile", nil, 0o600); err != nil {
		t.Error(err)
	}
	resume()
	until(t, "the end of the snapshot", s.(*target).isReleased)
	if err := p.Check(t.Context(), v.Volume); err != nil {
		t.Error(err)
	}
	if _, err := tool.Run(t.Context(), "lvs", g.name+"/"+namePrefix+"hangs-0"); err == nil {
		t.Error("it is still there")
	}
}
