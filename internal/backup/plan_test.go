package backup

import (
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// TestAllowed: what no snapshot can be taken of is refused with its own code
// when it is selected, and left out by name when it is mounted below.
func TestAllowed(t *testing.T) {
	tests := []struct {
		kind     volume.Kind
		selected problem.Code // when selected
		none     problem.Code // when selected, and read live
		below    problem.Code // when mounted below a selected path
		leftOut  bool
	}{
		{volume.Local, "", "", "", false},
		{volume.EFI, problem.VolumeEFI, "", problem.VolumeEFI, true},
		{volume.Memory, problem.VolumeMemory, "", "", true},
		{volume.Network, problem.VolumeNetwork, "", "", true},
		{volume.Virtual, problem.VolumeMemory, problem.VolumeMemory, "", true},
		{volume.Stacked, "", "", "", true}, // no provider takes it; that is said later
	}
	var p plan
	for _, tt := range tests {
		v := volume.Volume{ID: "v", Kind: tt.kind, FSType: "x"}
		if got := problem.CodeOf(p.allowed("/x", v, Options{})); got != tt.selected {
			t.Errorf("%s selected: %q, want %q", tt.kind, got, tt.selected)
		}
		if got := problem.CodeOf(p.allowed("/x", v, Options{Provider: None})); got != tt.none {
			t.Errorf("%s selected, live: %q, want %q", tt.kind, got, tt.none)
		}
		code, reason := p.rule(volume.Mounted{Volume: v}, Options{})
		if code != tt.below || (reason != "") != tt.leftOut {
			t.Errorf("%s mounted below: %q, %q", tt.kind, code, reason)
		}
	}
}

// A snapshot of ZFS that somebody has looked into is mounted below its dataset, in
// .zfs: that must not keep the dataset from being backed up.
func TestSnapshotOfZFSBelow(t *testing.T) {
	var p plan
	for source, left := range map[string]bool{"tank": false, "tank/a": false, "tank@daily": true, "tank/a@daily": true} {
		v := volume.Volume{ID: volume.ID("zfs:" + source), Kind: volume.Local, FSType: "zfs", Source: source}
		code, reason := p.rule(volume.Mounted{Volume: v}, Options{})
		if code != "" || (reason != "") != left {
			t.Errorf("%s: %q, %q", source, code, reason)
		}
	}
}
