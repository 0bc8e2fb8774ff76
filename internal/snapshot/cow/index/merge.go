package index

import (
	"cmp"
	"slices"
)

// merge enters found into children, both sorted by name, and returns the
// numbers whose names went and came. What is not found of the whole is not
// there. children must not be used any more.
func merge(children, found []Child, whole bool) (merged []Child, removed, added []uint64) {
	switch {
	case whole:
		return replace(children, found)
	case len(found) <= fewNames:
		return edit(children, found)
	}
	merged = make([]Child, 0, slack(len(children)+len(found)))
	for _, now := range found {
		i, known := find(children, now.Name)
		merged = append(merged, children[:i]...)
		children = children[i:]
		if known {
			if children[0].Number == now.Number {
				continue
			}
			removed = append(removed, children[0].Number)
			children = children[1:]
		}
		if now.Number != none {
			merged = append(merged, now)
			added = append(added, now.Number)
		}
	}
	return append(merged, children...), removed, added
}

// fewNames are changed where they are. A directory can have a million names,
// which take some milliseconds to copy.
const fewNames = 4

// slack is the room for n names and some that come later.
func slack(n int) int { return n + n/32 + 1 }

// edit is merge for few names.
func edit(children, found []Child) (edited []Child, removed, added []uint64) {
	for _, now := range found {
		i, known := find(children, now.Name)
		switch {
		case known && children[i].Number == now.Number, !known && now.Number == none:
			continue
		case !known:
			children = slices.Insert(children, i, now)
		case now.Number == none:
			removed = append(removed, children[i].Number)
			children = slices.Delete(children, i, i+1)
			continue
		default:
			removed = append(removed, children[i].Number)
			children[i] = now
		}
		added = append(added, now.Number)
	}
	return children, removed, added
}

// replace is merge for all names of a directory.
func replace(children, found []Child) (replaced []Child, removed, added []uint64) {
	replaced = make([]Child, 0, slack(len(found)))
	for len(children) > 0 || len(found) > 0 {
		order := 1 // of the next child to the next that was found
		switch {
		case len(found) == 0:
			order = -1
		case len(children) > 0:
			order = cmp.Compare(children[0].Name, found[0].Name)
		}
		if order < 0 {
			removed = append(removed, children[0].Number)
			children = children[1:]
			continue
		}
		now := found[0]
		found = found[1:]
		if order == 0 {
			was := children[0]
			children = children[1:]
			if was.Number == now.Number {
				replaced = append(replaced, now)
				continue
			}
			removed = append(removed, was.Number)
		}
		if now.Number != none {
			replaced = append(replaced, now)
			added = append(added, now.Number)
		}
	}
	return replaced, removed, added
}
