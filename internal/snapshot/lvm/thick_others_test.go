//go:build vm

package lvm

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot/snapshottest"
)

// A classic snapshot of somebody else's is a reason, and not touched.
func TestThickOther(t *testing.T) {
	g := newBare(t, 900)
	v := g.thick(t, "a", "ext4", 400)
	scratch.Run(t, "lvcreate", "--yes", "-q", "-q", "--snapshot", "-L", "64m", "-n", namePrefix+"look", g.name+"/a")
	was := describeThick(t, g)
	if _, err := New(hostTable).Named(t.Context(), v.Volume); problem.CodeOf(err) != problem.NoProvider || !strings.Contains(err.Error(), "snapshot of LVM") {
		t.Errorf("got %v, want no-provider", err)
	}
	left, err := New(hostTable).Leftovers(t.Context())
	if len(left) != 0 || !problem.Is(err, problem.LeftoverForeign) {
		t.Errorf("%v, %v", left, err)
	}
	same(t, g, was)
	scratch.Run(t, "lvremove", "--yes", "-q", g.name+"/"+namePrefix+"look")
	if _, err := New(hostTable).Named(t.Context(), v.Volume); err != nil {
		t.Error(err)
	}
}

// What a power cut leaves is not activated with its group, found without a thin pool, and
// removed by the next process.
func TestThickLeft(t *testing.T) {
	g := newBare(t, 700)
	g.thick(t, "a", "ext4", 400)
	by, err := self()
	if err != nil {
		t.Fatal(err)
	}
	by.boot = "another"
	lvs, err := host.list(t.Context(), g.name)
	if err != nil || len(lvs) != 1 {
		t.Fatal(lvs, err)
	}
	disks, err := host.disks(t.Context(), lvs[0].GroupUUID)
	if err != nil || len(disks) != 1 {
		t.Fatal(disks, err)
	}
	was := describeThick(t, g)
	p := New(hostTable)
	if left, err := p.Leftovers(t.Context()); len(left) != 0 || err != nil {
		t.Fatal(left, err)
	}
	c, err := open(snapshottest.Volume{}.Volume)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := newRoom(host, c, "left", 0, thick{lv: lvs[0], space: space{group: g.name, disks: []string{disks[0].Name}}, extents: 20}, by)
	if _, size, err := r.Make(t.Context()); err != nil || size != 80<<20 {
		t.Fatal(size, err)
	}
	scratch.Run(t, "lvchange", "-an", r.Name())
	scratch.Run(t, "vgchange", "--activate", "y", "-q", g.name)
	if attr := scratch.Run(t, "lvs", "--noheadings", "-o", "lv_active", r.Name()); strings.Contains(attr, "active") {
		t.Errorf("it was activated with its group: %q", attr)
	}
	left, err := p.Leftovers(t.Context())
	if err != nil || len(left) != 1 {
		t.Fatalf("leftovers: %v, %v", left, err)
	}
	if err := left[0].Release(t.Context()); err != nil {
		t.Error(err)
	}
	same(t, g, was)
}

// Classic volumes and one in a thin pool of the same group are of one instant, each by
// its own means, and nothing is left of a set of both kinds.
func TestMixed(t *testing.T) {
	h := thickHost("ext4")
	h.Volumes = func(tb testing.TB, n int) (vs []snapshottest.Volume) {
		g := newBare(tb, 2000)
		scratch.Run(tb, "lvcreate", "--yes", "-q", "-q", "--type", "thin-pool", "-L", "600m", "-n", "pool", g.name)
		for i := range n {
			if name := fmt.Sprint("volume", i); i == 1 {
				vs = append(vs, g.thin(tb, name, "xfs"))
			} else {
				vs = append(vs, g.thick(tb, name, "ext4", 300))
			}
		}
		return vs
	}
	const child = "STILLPOINT_TEST_MIXED"
	if h.Env = []string{child + "=1"}; os.Getenv(child) != "" {
		snapshottest.Run(t, h) // what a child is to do
		return
	}
	for _, name := range []string{"prefix-of-set", "leaves-nothing", "abort", "abort-during-commit", "guard", "exited"} {
		t.Run(name, func(t *testing.T) { snapshottest.RunCheck(t, h, name) })
	}
}
