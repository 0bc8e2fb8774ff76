package dm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/dm"
	"stillpoint/internal/volume"
)

func TestTag(t *testing.T) {
	o := owner{12, 345, 4026531836}
	for _, tg := range []tag{
		{kind: kindReal, origin: dm.Number{Major: 253, Minor: 7}},
		{kind: kindStore, origin: dm.Number{Major: 253, Minor: 70000}, set: "abc123", index: 3, owner: o},
		{kind: kindSnapshot, origin: dm.Number{Major: 253}, set: strings.Repeat("z", 32), owner: owner{1 << 22, 1 << 62, 1 << 32}},
		{kind: kindLayer, origin: dm.Number{Major: 253, Minor: 1}, set: "a", owner: o},
		{kind: kindSpare, origin: dm.Number{Major: 253, Minor: 1}, set: "a", owner: o},
	} {
		if len(tg.uuid()) > 128 || len(tg.name()) > 127 || !strings.HasPrefix(tg.name(), namePrefix) {
			t.Errorf("%q, %q", tg.uuid(), tg.name())
		}
		if got, ok := parseTag(tg.uuid()); !ok || got != tg {
			t.Errorf("%s: got %+v, %v", tg.uuid(), got, ok)
		}
	}
	// The first of the set of each of two providers.
	one, other := tag{kind: kindStore, origin: dm.Number{Major: 253}, set: "a", owner: o}, tag{kind: kindStore, origin: dm.Number{Major: 253, Minor: 1}, set: "a", owner: o}
	if one.name() == other.name() {
		t.Errorf("two devices are called %s", one.name())
	}
	for _, foreign := range []string{
		"", "LVM-abc", "STILLPOINT-", "STILLPOINT-1-real", "STILLPOINT-2-real-1:2", "STILLPOINT-1-real-1:2-", "STILLPOINT-1-real-01:2", "stillpoint-1-real-1:2",
		"LVM-STILLPOINT-1-real-1:2", "STILLPOINT-1-store-1:2-a-0-1.2.3", "LVM-STILLPOINT-1-store-1:2-a-0", "LVM-LVM-STILLPOINT-1-store-1:2-a-0-1.2.3", "STILLPOINT-1-store-1:2-a-0", "STILLPOINT-1-store-1:2-a-0-1.2", "STILLPOINT-1-store-1:2-a-00-1.2.3", "STILLPOINT-1-other-1:2-a-0-1.2.3", "1-real-1:2",
	} {
		if got, ok := parseTag(foreign); ok {
			t.Errorf("%q is ours: %+v", foreign, got)
		}
	}
}

func TestOwner(t *testing.T) {
	me, err := self()
	if err != nil {
		t.Fatal(err)
	}
	if !me.alive() {
		t.Error("this process does not live")
	}
	later := me
	later.start++
	if later.alive() {
		t.Error("a process with the number of this one lives")
	}
	if _, err := startOf(os.Getpid()); err != nil {
		t.Error(err)
	}
}

func TestFits(t *testing.T) {
	for params, fit := range map[string]bool{
		"linear 8:0 2048":            true,
		"striped 2 128 8:0 0 8:16 0": true,
		"thin 253:3 1":               true,
		"crypt aes-xts-plain64 00ff 0 8:0 4096 1 allow_discards":                  true,
		"crypt aes-xts-plain64 :64:logon:cryptsetup:none-of-this-name 0 8:0 4096": false,
		"crypt": false,
		"multipath 0 0 1 1 round-robin 0 1 1 8:0 1": false,
		"snapshot-origin 253:1":                     false,
		"raid raid1 3 0 region_size 1024 2 - 8:0":   false,
		"cache 8:0 8:1 8:2 128 1 writeback":         false,
	} {
		kind, rest, _ := strings.Cut(params, " ")
		table := []dm.Target{{Length: 8, Type: "linear", Params: "8:0 0"}, {Start: 8, Length: 8, Type: kind, Params: rest}}
		err := fits(table)
		if (err == nil) != fit {
			t.Errorf("%s: %v", params, err)
		}
		if err != nil && strings.Contains(err.Error(), "00ff") {
			t.Errorf("a key is shown: %v", err)
		}
	}
	if fits(nil) == nil {
		t.Error("no table fits")
	}
}

func TestFitsQueue(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		fits  bool
	}{
		"a disk":     {map[string]string{"dax": "0\n", "zoned": "none\n"}, true},
		"old kernel": {nil, true},
		"memory":     {map[string]string{"dax": "1\n", "zoned": "none\n"}, false},
		"zones":      {map[string]string{"dax": "0\n", "zoned": "host-managed\n"}, false},
	} {
		dir := t.TempDir()
		for file, text := range c.files {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := fitsQueue(dir); (err == nil) != c.fits {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNearest(t *testing.T) {
	lv := volume.Volume{ID: "x", Kind: volume.Local, FSType: "ext4", Device: "253:1", Stack: []volume.Device{{Name: "dm-1", Number: "253:1", DMName: "vg-lv"}, {Name: "sda", Level: 1}}}
	if n, err := nearest(lv); err != nil || n != (dm.Number{Major: 253, Minor: 1}) {
		t.Errorf("got %v, %v", n, err)
	}
	change := func(f func(v *volume.Volume)) volume.Volume {
		v := lv
		v.Stack = append([]volume.Device(nil), v.Stack...)
		f(&v)
		return v
	}
	for name, c := range map[string]struct {
		v    volume.Volume
		code problem.Code
	}{
		"btrfs":     {change(func(v *volume.Volume) { v.FSType = "btrfs" }), problem.NoProvider},
		"partition": {change(func(v *volume.Volume) { v.Stack[0].DMName = "" }), problem.NoProvider},
		"no device": {change(func(v *volume.Volume) { v.Stack = nil }), problem.NoProvider},
		"several":   {change(func(v *volume.Volume) { v.Stack[1].Level = 0 }), problem.NoProvider},
		"read-only": {change(func(v *volume.Volume) { v.ReadOnly = true }), ""}, // it may be mounted otherwise any moment
		"other":     {change(func(v *volume.Volume) { v.Device = "0:33" }), problem.NoProvider},
		"its log":   {change(func(v *volume.Volume) { v.FSType, v.Options = "xfs", []string{"rw", "logdev=/dev/sdb1"} }), problem.NoProvider},
	} {
		if _, err := nearest(c.v); problem.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseState(t *testing.T) {
	for params, want := range map[string]int64{"0/819200 0": 0, "32/819200 16": 16 << 10, "Invalid": -1, "Overflow": -1, "Merge failed": -1, "Unknown": -1, "": -1} {
		used, valid := parseState([]dm.Target{{Type: "snapshot", Params: params}})
		if valid != (want >= 0) || valid && used != want {
			t.Errorf("%q: got %d, %v", params, used, valid)
		}
	}
	if _, valid := parseState([]dm.Target{{Type: "error"}}); valid {
		t.Error("an error target is valid")
	}
}

func TestVolumeGroup(t *testing.T) {
	for name, want := range map[string]string{"vg-lv": "vg", "my--group-my--lv": "my-group", "a----b-c": "a--b", "vg-lv-real": "vg"} {
		if got := volumeGroup(name); got != want {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

// A host without device-mapper has no provider, and no leftovers.
func TestNone(t *testing.T) {
	if _, err := os.Stat("/dev/mapper/control"); err == nil {
		t.Skip("skipped: this host has device-mapper, which the tests in a virtual machine try")
	}
	p := New(nil)
	v := volume.Volume{ID: "x", Kind: volume.Local, FSType: "ext4", Device: "253:1", Stack: []volume.Device{{Number: "253:1", DMName: "vg-lv"}}}
	if err := p.Check(t.Context(), v); problem.CodeOf(err) != problem.NoProvider {
		t.Errorf("check: %v", err)
	}
	if left, err := p.Leftovers(t.Context()); len(left) > 0 || err != nil {
		t.Errorf("leftovers: %v, %v", left, err)
	}
}

// What would fill the thin pool of the set, or what has a snapshot, is no place.
func TestAgainst(t *testing.T) {
	on := func(id volume.ID, number string, pools ...string) volume.Volume {
		v := volume.Volume{ID: id, Device: number, Stack: []volume.Device{{Number: number, DMName: "vg-" + string(id)}}}
		for _, p := range pools {
			v.Stack = append(v.Stack, volume.Device{Number: p, DMName: "vg-pool-tpool", Level: 1})
		}
		return v
	}
	set := []volume.Volume{on("set", "253:5", "253:2")}
	all := append(set, on("same", "253:6", "253:2"), on("other", "253:7", "253:9"), on("none", "253:8"), on("asked", "253:10"))
	why := against(set, all, map[string]bool{"253:10": true})
	for id, want := range map[volume.ID]string{"same": "thin pool", "asked": "snapshot", "other": "", "none": ""} {
		if got := why[id]; want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q", id, got)
		}
	}
}

// Another file system at the place of the volume is not frozen in its stead.
func TestOpen(t *testing.T) {
	v := volume.Volume{ID: "x", Device: "253:99999", Mounts: []volume.Mount{{Point: t.TempDir(), Root: "/"}}}
	if _, err := open(v); problem.CodeOf(err) != problem.VolumeLost {
		t.Errorf("another one: %v", err)
	}
}
