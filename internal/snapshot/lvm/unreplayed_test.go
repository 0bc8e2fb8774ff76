package lvm

import (
	"strings"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// A volume whose journal was not replayed is not shown as it lies there.
func TestUnreplayed(t *testing.T) {
	v := volume.Volume{ID: "x", FSType: "xfs", Device: "253:1", Stack: []volume.Device{{Number: "253:1", Type: "lvm", DMName: "vg-thin"}}}
	if err := candidate(v); err != nil {
		t.Error(err)
	}
	for _, option := range []string{"norecovery", "noload"} {
		v.Options = []string{"ro", option}
		if err := candidate(v); problem.CodeOf(err) != problem.NoProvider || !strings.Contains(err.Error(), "journal") {
			t.Errorf("%s: %v", option, err)
		}
	}
}
