package coordinator

import (
	"slices"
	"strings"
	"testing"

	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// The last group is held first, but what lies in a file on another volume before that.
func TestHoldOrder(t *testing.T) {
	on := func(point, file string) Group {
		v := volume.Volume{ID: volume.ID(point), Mounts: []volume.Mount{{Point: point}}, Stack: []volume.Device{{Name: "dm-0"}, {Name: "loop0", File: file}}}
		return Group{Targets: []snapshot.Target{{Volume: v}}}
	}
	for name, c := range map[string]struct {
		groups []Group
		want   []int
	}{
		"none":             {nil, nil},
		"apart":            {[]Group{on("/a", ""), on("/b", ""), on("/c", "")}, []int{2, 1, 0}},
		"last lies below":  {[]Group{on("/a", "/c/image"), on("/b", ""), on("/c", "")}, []int{1, 0, 2}},
		"first lies below": {[]Group{on("/a", ""), on("/b", ""), on("/c", "/a/image")}, []int{2, 1, 0}},
		"one on the other": {[]Group{on("/a", "/b/image"), on("/b", "/c/image"), on("/c", "")}, []int{0, 1, 2}},
		"like it":          {[]Group{on("/a", "/cc/image"), on("/c", "")}, []int{1, 0}},
		"on the root":      {[]Group{on("/a", "/image"), on("/", "")}, []int{0, 1}},
		"not on the root":  {[]Group{on("/a", "/b/image"), on("/b", ""), on("/", "")}, []int{2, 0, 1}},
		"a ring":           {[]Group{on("/a", "/b/image"), on("/b", "/a/image")}, []int{1, 0}},
		"on its own":       {[]Group{on("/a", "/a/image"), on("/b", "")}, []int{1, 0}},
	} {
		if got := holdOrder(c.groups); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, not %v", name, got, c.want)
		}
	}
}

// Who suspends writes gets ready before another one that does so keeps writers waiting,
// also where no application rests.
func TestReadyBeforeTwo(t *testing.T) {
	for name, c := range map[string]struct {
		both bool
		want string
	}{
		"one suspends": {false, "hold btrfs, hold cow"},
		"two suspend":  {true, "get ready cow, get ready btrfs, hold btrfs, hold cow"},
	} {
		h, _ := run(t, 0, "", func(p *Plan) {
			p.Instances = nil
			other := p.Groups[1].Provider.(provider)
			other.suspends = c.both
			p.Groups[1].Provider = other
		})
		trace := slices.DeleteFunc(slices.Clone(h.trace), func(what string) bool {
			return !strings.HasPrefix(what, "hold ") && !strings.HasPrefix(what, "get ready ")
		})
		if got := strings.Join(trace, ", "); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}
