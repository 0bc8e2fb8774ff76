package index

import (
	"fmt"
	"path"
	"strings"
)

// A lead says which names of a directory lead to selected paths. Nil stands
// for all, and for everything below.
type lead struct{ names map[string]*lead }

// newLead makes the lead of the volume's root.
func newLead(paths []string) (*lead, error) {
	root := &lead{names: map[string]*lead{}}
	all := false
	for _, p := range paths {
		p = path.Clean(p)
		if path.IsAbs(p) || p == ".." || strings.HasPrefix(p, "../") {
			return nil, fmt.Errorf("index %q: not a path in the volume", p)
		}
		if p == "." {
			all = true
			continue
		}
		root.add(strings.Split(p, "/"))
	}
	if all || len(paths) == 0 {
		return nil, nil
	}
	return root, nil
}

func (l *lead) add(names []string) {
	next, known := l.names[names[0]]
	switch {
	case known && next == nil: // selected already
	case len(names) == 1:
		l.names[names[0]] = nil
	default:
		if !known {
			next = &lead{names: map[string]*lead{}}
			l.names[names[0]] = next
		}
		next.add(names[1:])
	}
}

// below returns the lead of what name stands for; wanted is false when it is
// not even on the way.
func (l *lead) below(name string) (next *lead, wanted bool) {
	if l == nil {
		return nil, true
	}
	next, wanted = l.names[name]
	return next, wanted
}
