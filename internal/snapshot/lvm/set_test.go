package lvm

import (
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// A pool in a file of another volume of the set could not take its snapshot.
func TestApart(t *testing.T) {
	outer := volume.Volume{ID: "outer", Mounts: []volume.Mount{{Point: "/srv", Root: "/"}}}
	inner := volume.Volume{ID: "inner", Stack: []volume.Device{{Name: "dm-3", Type: "lvm"}, {Name: "loop0", Type: "loop", File: "/srv/images/disk"}}}
	other := volume.Volume{ID: "other", Mounts: []volume.Mount{{Point: "/srv2", Root: "/"}}}
	if err := New(hostTable).Together(t.Context(), []volume.Volume{other, inner, outer}); problem.CodeOf(err) != problem.NotOneInstant {
		t.Errorf("got %v, want not-one-instant", err)
	}
	if err := New(hostTable).Together(t.Context(), []volume.Volume{inner, other}); err != nil {
		t.Error(err)
	}
}
