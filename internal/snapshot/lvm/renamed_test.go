//go:build vm

package lvm

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/scratch"
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
		s := take(t, New(hostTable), "renamed", v)[0]
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
