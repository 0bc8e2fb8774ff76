package lvm

import (
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// In some groups LVM makes no volume, or ours should not be.
func TestGroups(t *testing.T) {
	for attr, takes := range map[string]bool{
		"wz--n-": true, "wz--nl": true, "": true, "rz--n-": false, "wz-pn-": false, "wz--ns": false, "wz--nc": false,
	} {
		if err := (logical{Group: "vg", Attr: attr}).groupTakes(); (err == nil) != takes {
			t.Errorf("%q: %v", attr, err)
		}
	}
}

// What lies on more than the logical volume is refused, and what has a journal that
// was not replayed: it is not shown as it lies there.
func TestCandidate(t *testing.T) {
	v := volume.Volume{ID: "v", FSType: "xfs", Device: "253:4", Stack: []volume.Device{{Number: "253:4", Type: "lvm", DMName: "vg-a"}}}
	if err := candidate(v); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*volume.Volume){
		"another type": func(v *volume.Volume) { v.FSType = "btrfs" },
		"its log":      func(v *volume.Volume) { v.Options = []string{"rw", "logdev=/dev/sdb1"} },
		"its files":    func(v *volume.Volume) { v.Options = []string{"rw", "rtdev=/dev/sdb1"} },
		"norecovery":   func(v *volume.Volume) { v.Options = []string{"ro", "norecovery"} },
		"noload":       func(v *volume.Volume) { v.Options = []string{"ro", "noload"} },
		"more devices": func(v *volume.Volume) { v.Device = "0:44" },
	} {
		other := v
		change(&other)
		if err := candidate(other); problem.CodeOf(err) != problem.NoProvider {
			t.Errorf("%s: %v, want no-provider", name, err)
		}
	}
}
