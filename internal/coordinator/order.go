package coordinator

import (
	"slices"
	"strings"
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
			return !slices.ContainsFunc(left, func(j int) bool { return i != j && stands(groups, j, i) })
		}))
		order = append(order, left[at])
		left = slices.Delete(left, at, at+1)
	}
	return order
}

// stands tells whether a volume of a group lies in a file on one of another group.
func stands(groups []Group, g, on int) bool {
	for _, t := range groups[g].Targets {
		for _, d := range t.Volume.Stack {
			if d.File != "" && carrier(groups, d.File) == on {
				return true
			}
		}
	}
	return false
}

// carrier is the group with the volume that a path is on, as far as their mounts tell;
// -1 where there is none.
func carrier(groups []Group, path string) int {
	of, deepest := -1, ""
	for i, g := range groups {
		for _, t := range g.Targets {
			for _, m := range t.Volume.Mounts {
				if dir := strings.TrimSuffix(m.Point, "/") + "/"; !m.Hidden && strings.HasPrefix(path, dir) && len(dir) > len(deepest) {
					of, deepest = i, dir
				}
			}
		}
	}
	return of
}
