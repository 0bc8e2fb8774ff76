package coordinator

import (
	"slices"
	"strings"

	"stillpoint/internal/snapshot"
)

// holdOrder is the order in which the groups are held. Providers come best first, and
// the less one needs from below the more it does in its Hold before anybody waits: so
// the last is held first, and the others while its writers wait already are quick. But a
// volume that lies in a file on another one is held before that, or it could not be
// brought to rest.
func holdOrder(groups []Group) (order []int) {
	var left []int
	for i := range groups {
		left = append([]int{i}, left...)
	}
	for len(left) > 0 {
		at := max(0, slices.IndexFunc(left, func(i int) bool {
			return !slices.ContainsFunc(left, func(j int) bool { return i != j && stands(groups[j], groups[i]) })
		}))
		order = append(order, left[at])
		left = slices.Delete(left, at, at+1)
	}
	return order
}

// stands tells whether a volume of a group lies in a file on one of another group.
func stands(g, on Group) bool {
	for _, t := range g.Targets {
		for _, d := range t.Volume.Stack {
			if d.File != "" && slices.ContainsFunc(on.Targets, func(o snapshot.Target) bool { return carries(o, d.File) }) {
				return true
			}
		}
	}
	return false
}

// carries tells whether a path is on a volume, as far as its mounts tell.
func carries(t snapshot.Target, path string) bool {
	for _, m := range t.Volume.Mounts {
		if strings.HasPrefix(path, strings.TrimSuffix(m.Point, "/")+"/") {
			return true
		}
	}
	return false
}
