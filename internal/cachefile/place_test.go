package cachefile

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// recorded returns the volumes of a recorded host of package volume.
func recorded(t *testing.T, host string) []volume.Volume {
	t.Helper()
	b, err := os.ReadFile("../volume/testdata/" + host + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Volumes []volume.Volume }
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all.Volumes
}

// mounted picks volumes by their first mount points.
func mounted(t *testing.T, all []volume.Volume, points ...string) []volume.Volume {
	t.Helper()
	var set []volume.Volume
	for _, p := range points {
		i := slices.IndexFunc(all, func(v volume.Volume) bool { return v.Mounts[0].Point == p })
		if i < 0 {
			t.Fatalf("nothing is mounted at %s", p)
		}
		set = append(set, all[i])
	}
	return set
}

func TestRecordedHosts(t *testing.T) {
	for _, c := range []struct {
		host    string
		set     string // mount points
		rules   Rules
		dir     string            // chosen; empty: nowhere
		against map[string]string // what is said against a place
	}{
		{host: "cloudvm", set: "/", dir: "/srv/data", against: map[string]string{
			"/": "part of the set", "/run": "in memory", "/boot/efi": "the EFI system partition",
			"/snap/core22/1439": "read-only", "/media/stick": "fuseblk has no files without a name"}},
		{host: "cloudvm", set: "/srv/data", dir: "/"},
		{host: "cloudvm", set: "/ /srv/data", dir: "/boot"},
		{host: "cloudvm", set: "/ /srv/data /boot", dir: ""},
		{host: "cloudvm", set: "/ /srv/data /boot", rules: Rules{SameVolume: true}, dir: "/srv/data"},
		{host: "cloudvm", set: "/srv/data", rules: Rules{SameVolume: true}, dir: "/"}, // another one comes first
		{host: "cloudvm", set: "/", rules: Rules{Maximum: Bytes(100 << 40)}, dir: "/srv/data"},

		// All of a btrfs is one file system, whatever subvolume is meant, and
		// the only other one is encrypted, which does no harm.
		{host: "btrfs", set: "/", dir: "/data", against: map[string]string{"/home": "part of the set"}},
		// What is encrypted is not written to a disk in the clear, unless
		// the administrator says so.
		{host: "btrfs", set: "/data", dir: "", against: map[string]string{"/": "not encrypted, as a volume of the set is", "/data/vm": "part of the set"}},
		{host: "btrfs", set: "/data", rules: Rules{Named: []Named{{"/var/log/x", "f15c7196-cd62-422d-9d1d-f6cbd3f44834/258"}}}, dir: "/var/log/x"},
		{host: "luks-lvm", set: "/home", dir: "/", against: map[string]string{"/mnt/snap": "read-only", "/mnt/stick": "vfat has no files without a name", "/var/log/ram": "in memory"}},

		// In a container only single directories and files of volumes show.
		{host: "container", set: "/var/lib/postgresql/data", dir: "", against: map[string]string{"/etc/resolv.conf": "no mount point leads to its root"}},
		{host: "docker", set: "/", dir: "/var/lib/docker/volumes"},
		{host: "md-multipath", set: "/srv/oracle", dir: "/", against: map[string]string{"/media/cdrom": "read-only"}},
		{host: "odd", set: "/boot", dir: "/", against: map[string]string{"/mnt/nfs/disk": "too little free space", "/mnt/ram": "in memory"}},
		{host: "zfs", set: "/srv/db", dir: "/"},

		// What is named is taken in its order, and nothing else.
		{host: "cloudvm", set: "/", rules: Rules{Named: []Named{{"/run/x", "tmpfs:0:24"}, {"/boot/c", "e4c5a1d0-2c5c-4f1a-8ab1-6ab7f5a4f7d9"}}}, dir: "/boot/c",
			against: map[string]string{"/run/x": "in memory"}},
		{host: "cloudvm", set: "/", rules: Rules{Named: []Named{{"/var/x", "4b9f5b2e-5a1f-4e98-9a1e-351f31df1c4c"}}}, dir: "", against: map[string]string{"/var/x": "part of the set"}},
		{host: "cloudvm", set: "/", rules: Rules{Named: []Named{{"/gone", "no-such-id"}}}, dir: "", against: map[string]string{"/gone": "no such volume"}},
	} {
		t.Run(c.host+" "+c.set, func(t *testing.T) {
			all := recorded(t, c.host)
			p, candidates, err := Place(c.rules, mounted(t, all, strings.Fields(c.set)...), all)
			if p.Dir != c.dir {
				t.Errorf("placed at %q, want %q (%v)", p.Dir, c.dir, err)
			}
			if c.dir == "" && problem.CodeOf(err) != problem.CacheNowhere {
				t.Errorf("error %v", err)
			}
			for dir, why := range c.against {
				i := slices.IndexFunc(candidates, func(x Candidate) bool { return x.Dir == dir })
				if i < 0 || !slices.ContainsFunc(candidates[i].Against, func(s string) bool { return strings.Contains(s, why) }) {
					t.Errorf("against %s is not said %q: %+v", dir, why, candidates)
				}
			}
			for _, x := range candidates {
				if x.Chosen != (c.dir != "" && x.Dir == c.dir && x.Volume == p.Volume) || x.Chosen && len(x.Against) > 0 {
					t.Errorf("%+v", x)
				}
			}
			if _, err := json.Marshal(candidates); err != nil {
				t.Error(err)
			}
		})
	}
}

const gib = 1 << 30

// disk is a volume on a device of its own.
func disk(point string, free, used uint64) volume.Volume {
	return volume.Volume{ID: volume.ID("id:" + point), Kind: volume.Local, FSType: "ext4", Device: "8:" + point, Size: free + used, Free: free, Used: used,
		Mounts: []volume.Mount{{Point: point, Root: "/"}}, Stack: []volume.Device{{Name: point, Number: "8:" + point, Type: "disk"}}}
}

// loop is a volume in a file.
func loop(point, file string, free uint64) volume.Volume {
	v := disk(point, free, gib)
	v.Stack = []volume.Device{{Name: "loop" + point, Type: "loop", File: file}}
	return v
}

func TestLoopDevices(t *testing.T) {
	memory := disk("/dev/shm", gib, 0)
	memory.Kind = volume.Memory
	all := []volume.Volume{
		disk("/", 2*gib, gib), disk("/srv", 3*gib, gib), memory,
		loop("/in/srv", "/srv/a.img", 9*gib),
		loop("/in/in", "/in/srv/b.img", 8*gib),
		loop("/in/shm", "/dev/shm/c.img", 7*gib),
		loop("/in/root", "/srvs/d.img", 6*gib), // not below /srv
	}
	for set, want := range map[string]string{
		"/srv":           "/in/root", // the first two stand on it
		"/":              "/in/srv",
		"/ /srv":         "", // everything stands on these
		"/in/in":         "/in/srv",
		"/in/root":       "/in/srv",
		"/in/srv /":      "/srv", // below a volume of the set
		"/in/srv /in/in": "/in/root",
	} {
		p, candidates, err := Place(Rules{}, mounted(t, all, strings.Fields(set)...), all)
		if p.Dir != want {
			t.Errorf("%s: %q, want %q: %v\n%+v", set, p.Dir, want, err, candidates)
		}
	}
	// A path leads to what is on top.
	hidden := disk("/srv/a.img", gib, 0)
	hidden.Mounts[0].Hidden = true
	if p, _, _ := Place(Rules{}, mounted(t, all, "/srv"), append(all, hidden)); p.Dir != "/in/root" {
		t.Errorf("with a hidden mount: %+v", p)
	}
	_, candidates, _ := Place(Rules{}, mounted(t, all, "/in/srv"), all)
	for _, c := range candidates {
		text := fmt.Sprint(c.For, c.Against)
		if want := map[string]string{
			"/in/in": "stands on /in/srv, which is part of the set", "/in/shm": "stands on /dev/shm, which is memory",
			"/srv": "/in/srv stands on it, which does no harm",
		}[c.Dir]; !strings.Contains(text, want) {
			t.Errorf("%s: %s", c.Dir, text)
		}
	}
}

func TestLimits(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		why     string
		free    uint64
		used    []uint64
		rules   Rules
		maximum []int64 // nil: too little
		initial int64
	}{
		{"30 % of what is used", 100 * gib, []uint64{10 * gib}, Rules{}, []int64{3 * gib}, Least},
		{"all of a small one", 100 * gib, []uint64{gib / 2}, Rules{}, []int64{gib / 2}, Least},
		{"as much of a larger one as of a small one", 100 * gib, []uint64{2 * gib}, Rules{}, []int64{gib}, Least},
		{"90 % of what is free", 1 * gib, []uint64{10 * gib}, Rules{}, []int64{gib / 10 * 9}, Least},
		{"at least 50 MiB", 100 * gib, []uint64{mib}, Rules{}, []int64{Least}, Least},
		{"as it is named", 100 * gib, []uint64{mib}, Rules{Maximum: Bytes(7 * gib), Initial: Bytes(gib)}, []int64{7 * gib}, gib},
		{"a share", 100 * gib, []uint64{mib}, Rules{Maximum: Percent(50), Initial: Percent(1)}, []int64{50 * gib}, gib},
		{"never all of it", 100 * gib, []uint64{mib}, Rules{Maximum: Percent(100)}, []int64{90 * gib}, Least},
		{"initial is no more than the maximum", 100 * gib, []uint64{mib}, Rules{Maximum: Bytes(gib), Initial: Bytes(2 * gib)}, []int64{gib}, gib},
		{"two share", 10 * gib, []uint64{40 * gib, 10 * gib}, Rules{}, []int64{6912 * mib, 2304 * mib}, Least},
		{"small ones beside a large one", 326 * mib, []uint64{2 * gib, mib, mib, mib, mib}, Rules{}, []int64{93 * mib, Least, Least, Least, Least}, Least},
		{"small ones, too little", 270 * mib, []uint64{2 * gib, mib, mib, mib, mib}, Rules{}, nil, 0},
		{"two, too little", 100 * mib, []uint64{gib, gib}, Rules{}, nil, 0},
		{"too little", 55 * mib, []uint64{gib}, Rules{}, nil, 0},
		{"too small a maximum", gib, []uint64{gib}, Rules{Maximum: Bytes(mib)}, []int64{Least}, Least},
	} {
		var set []volume.Volume
		for i, u := range c.used {
			set = append(set, disk(fmt.Sprint("/set", i), 0, u))
		}
		p, candidates, err := Place(c.rules, set, append([]volume.Volume{disk("/cache", c.free, 0)}, set...))
		if c.maximum == nil {
			if problem.CodeOf(err) != problem.CacheNowhere || !strings.Contains(err.Error(), "too little") {
				t.Errorf("%s: %v %+v", c.why, err, candidates)
			}
			continue
		}
		if err != nil || len(p.Limits) != len(c.maximum) {
			t.Errorf("%s: %+v, %v", c.why, p, err)
			continue
		}
		total := int64(0)
		for i, l := range p.Limits {
			// Shares are rounded.
			if d := l.Maximum - c.maximum[i]; d > mib || d < -mib || l.Initial != c.initial || l.Keep <= 0 {
				t.Errorf("%s: file %d: %+v, want %d and %d", c.why, i, l, c.maximum[i], c.initial)
			}
			total += l.Raised
		}
		if most := int64(c.free / 10 * 9); c.rules.Maximum != (Size{}) && total != 0 || c.rules.Maximum == (Size{}) && (total > most || total < most-mib) {
			t.Errorf("%s: raised to %d of %d", c.why, total, c.free)
		}
	}
}

// Whatever the host is like, nothing goes where it must not. Most hosts have a
// good volume, so that a place is found on most of them.
func TestNeverAForbiddenPlace(t *testing.T) {
	hosts, chosen, onSet := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{1, 2, 3, 4, 5, 6, 7, 8}).Draw(t, "volumes")
		one := func(of int, label string) bool { return rapid.Uint64().Draw(t, label)%uint64(of) == 0 }
		r := Rules{SameVolume: rapid.Bool().Draw(t, "same volume")}
		good := !one(8, "no good one")
		all := make([]volume.Volume, n)
		under := make([]int, n) // the volume that holds the file of its loop device, -1 for none
		for i := range all {
			all[i] = disk(fmt.Sprint("/v", i), rapid.SampledFrom([]uint64{0, Least, gib, 3 * gib}).Draw(t, "free")+rapid.Uint64Range(0, gib).Draw(t, "more"), rapid.Uint64Range(0, gib).Draw(t, "used"))
			all[i].Kind = rapid.SampledFrom([]volume.Kind{volume.Local, volume.Local, volume.Local, volume.Memory, volume.EFI, volume.Network, volume.Virtual, volume.Stacked}).Draw(t, "kind")
			if i == 0 && good {
				all[i].Kind, all[i].Free = volume.Local, max(all[i].Free, gib)
				under[i] = -1
				continue
			}
			all[i].FSType = rapid.SampledFrom([]string{"ext4", "xfs", "btrfs", "vfat"}).Draw(t, "type")
			all[i].ReadOnly = rapid.IntRange(0, 5).Draw(t, "ro") == 0
			all[i].Mounts[0].ReadOnly = rapid.IntRange(0, 8).Draw(t, "mount ro") == 0
			if all[i].FSType == "btrfs" {
				all[i].ID = volume.ID(fmt.Sprintf("uuid%d/%d", rapid.IntRange(0, 1).Draw(t, "uuid"), 256+i))
				all[i].Subvolume = &volume.Subvolume{ID: uint64(256 + i)}
			}
			if under[i] = rapid.IntRange(-n, i-1).Draw(t, "under"); under[i] >= 0 {
				all[i].Stack = []volume.Device{{Type: "loop", File: fmt.Sprintf("/v%d/image", under[i])}}
			}
		}
		inSet := make([]bool, n)
		var set []volume.Volume
		for i := range all {
			inSet[i] = all[i].Kind == volume.Local && one(3, "set") && (i > 0 || !good || r.SameVolume)
			if inSet[i] {
				set = append(set, all[i])
			}
		}
		if len(set) == 0 {
			return
		}
		frozen := func(i int) bool {
			for j := range all {
				uuid := func(k int) string { return strings.Split(string(all[k].ID), "/")[0] }
				if inSet[j] && (i == j || all[i].Subvolume != nil && all[j].Subvolume != nil && uuid(i) == uuid(j)) {
					return true
				}
			}
			return false
		}
		for range rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2}).Draw(t, "named") {
			i := rapid.IntRange(0, n-1).Draw(t, "name")
			r.Named = append(r.Named, Named{fmt.Sprintf("/v%d/named", i), all[i].ID})
		}
		p, candidates, err := Place(r, set, all)
		hosts++
		if err != nil {
			if problem.CodeOf(err) != problem.CacheNowhere || len(candidates) == 0 && len(r.Named) > 0 {
				t.Fatalf("%v %+v", err, candidates)
			}
			return
		}
		chosen++
		i := slices.IndexFunc(all, func(v volume.Volume) bool { return v.ID == p.Volume })
		v := all[i]
		switch {
		case v.Kind != volume.Local, v.ReadOnly, v.Mounts[0].ReadOnly && len(r.Named) == 0:
			t.Fatalf("placed on %+v", v)
		case frozen(i) && !r.SameVolume:
			t.Fatalf("placed on the set: %+v", p)
		case len(r.Named) > 0 && !slices.Contains(r.Named, Named{p.Dir, p.Volume}):
			t.Fatalf("not what was named: %+v", p)
		}
		if frozen(i) && len(r.Named) == 0 {
			onSet++
			for _, c := range candidates {
				j := slices.IndexFunc(all, func(v volume.Volume) bool { return v.ID == c.Volume })
				if !frozen(j) && len(c.Against) == 0 {
					t.Fatalf("on the set, and %+v would do", c)
				}
			}
		}
		on := []volume.ID{p.Volume}
		for j := under[i]; j >= 0; j = under[j] {
			on = append(on, all[j].ID)
			if frozen(j) || all[j].Kind != volume.Local {
				t.Fatalf("%+v stands on %+v", v, all[j])
			}
		}
		if !slices.Equal(p.On, on) {
			t.Fatalf("%+v stands on %v", p, on)
		}
		total := int64(0)
		for _, l := range p.Limits {
			total += l.Maximum
			if l.Maximum < Least || l.Initial > l.Maximum || l.Floor <= 0 || l.Floor > l.Keep/2 {
				t.Fatalf("limits %+v", l)
			}
		}
		if len(p.Limits) != len(set) || total > int64(v.Free)/10*9+int64(len(set)) {
			t.Fatalf("limits %+v of %d", p.Limits, v.Free)
		}
	})
	if chosen < hosts/2 || onSet == 0 {
		t.Errorf("of %d hosts %d had a place, and %d of these on the set: too little was tested", hosts, chosen, onSet)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"10%": Percent(10), "100 %": Percent(100), "0.5%": Percent(0.5), "1": Bytes(1), "50M": Bytes(50 << 20), "2GiB": Bytes(2 << 30),
		"2 gb": Bytes(2 << 30), "7k": Bytes(7 << 10), "1T": Bytes(1 << 40), "512B": Bytes(512), " 3K ": Bytes(3 << 10),
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "0%", "101%", "-5%", "NaN%", "x", "5X", "5KM", "5i", "5iB", "1e9", "9999999999999999999", "9999999999T", "%", "M"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}
