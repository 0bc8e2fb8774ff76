package lvm

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"stillpoint/internal/cachefile"
	"stillpoint/internal/problem"
	stack "stillpoint/internal/snapshot/dm"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

const mib = 1 << 20

// What each volume gets of the free extents of its group, in MiB.
func TestDivide(t *testing.T) {
	const gib = 1 << 10
	type of struct{ size, used uint64 }
	for _, one := range []struct {
		name         string
		extent, free int64 // MiB, extents
		maximum      string
		volumes      []of
		want         []int64 // MiB; none where there is too little
	}{
		{"a third of what is used", 4, 10 * gib, "", []of{{20 * gib, 10 * gib}}, []int64{3*gib + 4}},
		{"all of a small one", 4, 10 * gib, "", []of{{600, 300}}, []int64{304}},
		{"never more than all of it", 4, 10 * gib, "", []of{{40, 10}}, []int64{44}},
		{"nine tenths of what is free", 4, 250, "", []of{{20 * gib, 10 * gib}}, []int64{904}},
		{"by weight", 4, 1000, "", []of{{20 * gib, 10 * gib}, {20 * gib, 5 * gib}}, []int64{2404, 1204}},
		{"at least 50", 4, 250, "", []of{{900 * gib, 800 * gib}, {1 * gib, 10}}, []int64{852, 56}},
		{"as people want it", 4, 10 * gib, "100M", []of{{20 * gib, 10 * gib}}, []int64{104}},
		{"a share", 4, 250, "50%", []of{{20 * gib, 10 * gib}}, []int64{504}},
		{"large extents", 64, 10, "", []of{{20 * gib, 1 * gib}}, []int64{576}},
		{"no free extents", 4, 0, "", []of{{20 * gib, 10 * gib}}, nil},
		{"too few", 4, 13, "", []of{{20 * gib, 10 * gib}}, nil},
		{"too few for two", 4, 26, "", []of{{20 * gib, 10 * gib}, {20 * gib, 10 * gib}}, nil},
		{"too few when rounded up", 64, 3, "", []of{{400, 100}, {400, 100}}, nil},
	} {
		var maximum cachefile.Size
		if one.maximum != "" {
			var err error
			if maximum, err = cachefile.ParseSize(one.maximum); err != nil {
				t.Fatal(err)
			}
		}
		var ts []*thick
		for _, v := range one.volumes {
			ts = append(ts, &thick{volume: volume.Volume{Used: v.used * mib, Stack: []volume.Device{{Size: v.size * mib}}}})
		}
		s := space{group: "vg", extent: one.extent * mib, free: one.free, left: []string{"/dev/sdx is odd"}}
		err := s.divide(maximum, ts)
		if one.want == nil {
			if problem.CodeOf(err) != problem.PoolFull || !strings.Contains(err.Error(), "/dev/sdx is odd") {
				t.Errorf("%s: %v, want pool-full", one.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", one.name, err)
			continue
		}
		total := int64(0)
		for i, v := range ts {
			if got := v.extents * one.extent; got < one.want[i]-one.extent || got > one.want[i]+one.extent {
				t.Errorf("%s: volume %d gets %d MiB, want %d", one.name, i, got, one.want[i])
			}
			if v.extents*one.extent*mib < cachefile.Least+2*stack.RoomMargin && one.volumes[i].size > 50 {
				t.Errorf("%s: volume %d gets less than what is worth a try", one.name, i)
			}
			total += v.extents
		}
		if total > one.free*9/10 {
			t.Errorf("%s: %d extents of %d, which is more than nine tenths", one.name, total, one.free)
		}
	}
}

// What may need free extents of the group leaves a fifth of itself free.
func TestKeep(t *testing.T) {
	const group = "d8XCj2-SS3J-Ghyl-Ct3J-BTQG-Xx0F-4d1Ubs"
	lv := func(name, attr string, size int64) logical {
		return logical{Group: "vg", GroupUUID: group, Name: name, VolumeAttr: attr, Size: strconv.FormatInt(size*mib, 10), UUID: "uj2kKQ-eCRh-geDb-nFhf-Quz6-XBbh-XADUrg"}
	}
	other := lv("pool", "twi-aotz--", 1<<20)
	other.GroupUUID = "another"
	lvs := []logical{
		lv("srv", "-wi-ao----", 9000), lv("[pool_tdata]", "Twi-ao----", 9000), lv("thin", "Vwi-aotz--", 9000), other,
		lv("snap", "swi-a-s---", 500), lv("pool", "twi-aotz--", 1002), lv("[vpool0_vdata]", "Dwi-ao----", 800), {GroupUUID: group},
	}
	all, err := growersOf(lvs, group)
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	for i, want := range []struct{ name, suffix string }{{"vg/snap", "-cow"}, {"vg/pool", "-tpool"}, {"vg/vpool0_vdata", "-vdata"}} {
		if g := all[i]; g.name != want.name || !strings.HasSuffix(g.uuid, want.suffix) || g.isThin != (i == 1) {
			t.Errorf("%d: %+v", i, g)
		}
	}
	if _, err := growersOf([]logical{{GroupUUID: group, VolumeAttr: "twi-aotz--", Size: "1g"}}, group); problem.CodeOf(err) != problem.SnapshotFailed {
		t.Errorf("a size that is no number: %v", err)
	}
	for _, one := range []struct {
		free, want int64 // extents; none where there is too little
	}{{1000, 854}, {70, 17}, {64, 0}, {51, 0}, {10, 0}} {
		s := space{group: "vg", extent: 4 * mib, free: one.free}
		if err := s.keepFor(&dm.Control{}, slices.Clone(all)); err != nil || s.keep != 51 || s.keptFor != "vg/pool" {
			t.Fatalf("%+v, %v", s, err)
		}
		th := &thick{volume: volume.Volume{Used: 1 << 40, Stack: []volume.Device{{Size: 1 << 41}}}}
		err := s.divide(cachefile.Size{}, []*thick{th})
		if one.want == 0 {
			if problem.CodeOf(err) != problem.PoolFull || !strings.Contains(err.Error(), "204 MiB stay for what vg/pool") {
				t.Errorf("%d free: %v, want pool-full", one.free, err)
			}
			continue
		}
		if left := one.free - th.extents; err != nil || left < s.keep || th.extents > (one.free-s.keep)*9/10 || th.extents != one.want {
			t.Errorf("%d free: %d taken, %v", one.free, th.extents, err)
		}
	}
}

// Which disks of a group hold no originals.
func TestUnfit(t *testing.T) {
	disk := volume.Device{Name: "sda", Number: "8:0", Type: "disk"}
	crypt := volume.Device{Name: "dm-1", Type: "crypt"}
	file := volume.Device{Name: "loop0", Number: "7:0", Type: "loop", File: "/srv/images/disk"}
	plain := volume.Volume{ID: "plain", Stack: []volume.Device{{Type: "lvm"}, disk}, Mounts: []volume.Mount{{Point: "/srv", Root: "/"}}}
	secret := volume.Volume{ID: "secret", Stack: []volume.Device{{Type: "lvm"}, crypt, disk}, Mounts: []volume.Mount{{Point: "/home", Root: "/"}}}
	for _, one := range []struct {
		name  string
		below []volume.Device
		set   []volume.Volume
		why   string
	}{
		{"a disk", []volume.Device{disk}, []volume.Volume{plain}, ""},
		{"an encrypted one", []volume.Device{crypt, disk}, []volume.Volume{plain, secret}, ""},
		{"one in the clear", []volume.Device{disk}, []volume.Volume{plain, secret}, "not encrypted"},
		{"a file on a volume of the set", []volume.Device{file, disk}, []volume.Volume{plain}, "part of the set"},
		{"a file on another volume", []volume.Device{file, crypt}, []volume.Volume{secret}, ""},
		{"one that has gone", nil, []volume.Volume{plain}, "not there"},
	} {
		why := unfit(nil, one.below, one.set)
		if (why == "") != (one.why == "") || !strings.Contains(why, one.why) {
			t.Errorf("%s: %q", one.name, why)
		}
	}
}

// What pvs says (lvm2 2.03.31).
func TestDisks(t *testing.T) {
	c := consoleOf(func(ctx context.Context, name string, args ...string) ([]byte, error) {
		return []byte(`{"report":[{"pv":[
			{"pv_name":"/dev/sda1", "pv_attr":"a--", "pv_free":"419430400", "pv_major":"8", "pv_minor":"1", "vg_extent_size":"4194304"},
			{"pv_name":"/dev/sdb", "pv_attr":"u--", "pv_free":"0", "pv_major":"8", "pv_minor":"16", "vg_extent_size":"4194304"}
		]}],"log":[]}`), nil
	})
	all, err := c.disks(t.Context(), "group")
	if err != nil || len(all) != 2 || all[0] != (disk{"/dev/sda1", "a--", json.Number("419430400"), "8", "1", "4194304"}) {
		t.Errorf("%+v, %v", all, err)
	}
}

// LVM's notes tell whether a group may have something of ours, and where there are none
// it has to be asked.
func TestNoted(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"none":   "vg {\n\tlogical_volumes {\n\t\troot {\n\t\t\ttags = [\"daily\"]\n",
		"asked":  "description = \"Created *after* executing 'lvremove --select lv_tags=\\\"stillpoint.proof=1\\\" vg/stillpoint-a-room-0'\"\n",
		"tagged": "\t\tother {\n\t\t\ttags = [\"stillpoint\", \"stillpoint.set=a\"]\n",
		"named":  "\t\tstillpoint-a-room-0 {\n\t\t\ttags = [\"x\"]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{"none": false, "asked": false, "tagged": true, "named": true, "missing": true} {
		if got := isNoted(dir, name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The names that a device has are those that LVM gave.
func TestNames(t *testing.T) {
	uuid := dmUUID(logical{GroupUUID: "d8XCj2-SS3J-Ghyl-Ct3J-BTQG-Xx0F-4d1Ubs", UUID: "uj2kKQ-eCRh-geDb-nFhf-Quz6-XBbh-XADUrg"})
	for name, want := range map[string][2]string{
		"vg-root":                          {"vg", "root"},
		"my--group-stillpoint--a--room--0": {"my-group", "stillpoint-a-room-0"},
		"vg-stillpoint--0":                 {"vg", "stillpoint-0"},
	} {
		if g, v := namesOf(dm.Device{Name: name, UUID: uuid}); g != want[0] || v != want[1] {
			t.Errorf("%s: %q and %q", name, g, v)
		}
	}
	if g, v := namesOf(dm.Device{Name: "data-crypt", UUID: "CRYPT-LUKS2-x"}); g != "" || v != "" {
		t.Errorf("LUKS is %q and %q", g, v)
	}
}
