package volume

import "strings"

// A tree is how mounts lie in and over one another.
type tree struct {
	nodes    []node         // in the order of mountinfo
	byID     map[int]int    // index of nodes, by mount ID
	children map[anchor]int // index of nodes, by where they are mounted
	root     *node          // the lowest mount at "/"; nil where a chroot hides it
}

// A node is one mount.
type node struct {
	mount  Mount
	volume int // index of the volume
}

// An anchor is where a mount is attached: a directory or file of its parent.
// One mount at most is attached to each (fs/namespace.c, lookup_mnt); a second
// one at the same path is attached to the root of the first.
type anchor struct {
	parent int
	point  string
}

func newTree(n int) tree {
	return tree{nodes: make([]node, 0, n), byID: make(map[int]int, n), children: make(map[anchor]int, n)}
}

func (t *tree) add(m Mount, volume int) {
	i := len(t.nodes)
	t.nodes = append(t.nodes, node{mount: m, volume: volume})
	t.byID[m.ID] = i
	if m.Parent != m.ID {
		t.children[anchor{m.Parent, m.Point}] = i
	}
}

// settle finds the root and what is hidden, once all mounts are added.
func (t *tree) settle() {
	for i := range t.nodes {
		n := &t.nodes[i]
		_, hasParent := t.byID[n.mount.Parent]
		if n.mount.Point == "/" && (!hasParent || n.mount.Parent == n.mount.ID) {
			t.root = n
			break
		}
	}
	for i := range t.nodes {
		n := &t.nodes[i]
		n.mount.Hidden = t.at(n.mount.Point) != n
	}
}

// at returns the mount that shows a canonical path, as the kernel looks it up:
// from the root on, at each step into what is mounted there, and over that.
func (t *tree) at(path string) *node {
	n := t.root
	if n == nil {
		return nil
	}
	n = t.over(n, "/")
	for i := 1; i < len(path); i++ {
		end := strings.IndexByte(path[i:], '/')
		if end < 0 {
			end = len(path) - i
		}
		i += end
		n = t.over(n, path[:i])
	}
	return n
}

// over returns the topmost of the mounts at point, of which n lies below.
func (t *tree) over(n *node, point string) *node {
	for range t.nodes { // and no longer, should a damaged table have a circle
		i, ok := t.children[anchor{n.mount.ID, point}]
		if !ok {
			break
		}
		n = &t.nodes[i]
	}
	return n
}

// above returns the mounts that a lookup of a mount's point passes through.
func (t *tree) above(id int) []*node {
	var all []*node
	n := &t.nodes[t.byID[id]]
	for range t.nodes {
		i, ok := t.byID[n.mount.Parent]
		if !ok || n.mount.Parent == n.mount.ID {
			break
		}
		n = &t.nodes[i]
		all = append(all, n)
	}
	return all
}

// contains reports whether path is dir or lies below it.
func contains(dir, path string) bool {
	return dir == "/" || path == dir || strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}

// comparePaths orders paths so that everything below a directory follows it at
// once: "/a", "/a/b", "/a-b".
func comparePaths(a, b string) int {
	for {
		x, restA, moreA := strings.Cut(a, "/")
		y, restB, moreB := strings.Cut(b, "/")
		if c := strings.Compare(x, y); c != 0 {
			return c
		}
		switch {
		case !moreA && !moreB:
			return 0
		case !moreA:
			return -1
		case !moreB:
			return 1
		}
		a, b = restA, restB
	}
}
