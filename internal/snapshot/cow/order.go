package cow

import (
	"errors"
	"slices"
	"strings"
	"sync"
)

// innerFirst orders the targets so that a volume on a loop device comes before
// the one that its file lies on. Frozen the other way round, the freeze of the
// inner one waits for the thaw of the outer one (and is then left frozen). Those
// of one layer may be frozen at the same time.
func innerFirst(ts []*target) (layers [][]*target) {
	layers = make([][]*target, len(ts))
	for _, t := range ts {
		depth := min(depthOf(t, ts, len(ts)), len(ts)-1)
		layers[len(ts)-1-depth] = append(layers[len(ts)-1-depth], t)
	}
	return slices.DeleteFunc(layers, func(layer []*target) bool { return len(layer) == 0 })
}

// depthOf is how many volumes of the set the target lies on, one on the other.
func depthOf(t *target, all []*target, most int) int {
	depth := 0
	for _, d := range t.target.Volume.Stack {
		if outer := holding(all, d.File); outer != nil && outer != t && most > 0 {
			depth = max(depth, 1+depthOf(outer, all, most-1))
		}
	}
	return depth
}

// holding returns the target with the deepest mount point above a path.
func holding(ts []*target, path string) (found *target) {
	length := 0
	for _, t := range ts {
		for _, m := range t.target.Volume.Mounts {
			point := strings.TrimSuffix(m.Point, "/") + "/"
			if path != "" && strings.HasPrefix(path, point) && len(point) > length {
				found, length = t, len(point)
			}
		}
	}
	return found
}

// inParallel does the same for several targets, none of which waits for
// another one that is stuck.
func inParallel(ts []*target, do func(*target) error) error {
	errs := make([]error, len(ts))
	var wait sync.WaitGroup
	for i, t := range ts {
		wait.Go(func() { errs[i] = do(t) })
	}
	wait.Wait()
	return errors.Join(errs...)
}
