package volume

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"syscall"

	"stillpoint/internal/problem"
)

// Find returns the volume that shows path, the mount at which it does, and the
// path within the volume, "." for its root. Path is resolved first. A btrfs
// subvolume without a mount of its own is a part of the volume that shows it.
func (t *Table) Find(path string) (v Volume, m Mount, rel string, err error) {
	canonical, id, err := t.locate(path)
	if err != nil {
		return Volume{}, Mount{}, "", err
	}
	n := t.tree.at(canonical)
	switch {
	case n == nil:
		err = problem.Newf(problem.VolumeLost, path, "no mount shows it")
	case id != 0 && id != n.mount.ID:
		err = problem.Newf(problem.VolumeLost, path, "mounts have changed: the one at %s no longer shows it", n.mount.Point)
	case n.mount.Deleted:
		err = problem.Newf(problem.VolumeLost, path, "what is mounted at %s was deleted from its volume", n.mount.Point)
	default:
		return t.volumes[n.volume], n.mount, relative(n.mount, canonical), nil
	}
	return Volume{}, Mount{}, "", err
}

// Holder returns the volume that shows path, or would show it: for a file that
// was there a moment ago, as a journal was, it is the volume of its folder.
func (t *Table) Holder(name string) (Volume, error) {
	v, _, _, err := t.Find(name)
	if problem.Is(err, problem.PathMissing) && path.IsAbs(name) {
		if in, _, _, of := t.Find(path.Dir(name)); of == nil {
			return in, nil
		}
	}
	return v, err
}

// Resolve returns the canonical live path of path: absolute, with symbolic
// links followed. It must exist.
func (t *Table) Resolve(path string) (string, error) {
	canonical, _, err := t.locate(path)
	return canonical, err
}

// Below returns what is mounted strictly below a canonical live path and can
// be seen there, in the order of paths. What another mount hides is left out.
func (t *Table) Below(path string) []Mounted {
	var below []Mounted
	for i := range t.tree.nodes {
		n := &t.tree.nodes[i]
		if !n.mount.Hidden && n.mount.Point != path && contains(path, n.mount.Point) {
			below = append(below, Mounted{t.volumes[n.volume], n.mount})
		}
	}
	slices.SortFunc(below, func(a, b Mounted) int { return comparePaths(a.Mount.Point, b.Mount.Point) })
	return below
}

// Resolve returns the canonical live path of a path on this host. See
// Table.Resolve, which knows more about a path that cannot be reached.
func Resolve(path string) (string, error) {
	canonical, _, err := locate(host{}, path)
	return canonical, err
}

// locate is locate, but knows a path on a dead server for what it is.
func (t *Table) locate(name string) (canonical string, mount int, err error) {
	canonical, mount, err = locate(t.probe, name)
	if problem.Is(err, problem.VolumeLost) && strings.HasPrefix(name, "/") {
		n := t.tree.at(path.Clean(name))
		if n != nil && t.volumes[n.volume].Kind == Network {
			err = problem.New(problem.VolumeNetwork, name, errors.Unwrap(err))
		}
	}
	return canonical, mount, err
}

// locate asks where a path leads, and gives a failure its code.
func locate(p Probe, name string) (canonical string, mount int, err error) {
	type place struct {
		path  string
		mount int
	}
	at, err := within(context.Background(), locateLimit, func() (place, error) {
		path, mount, err := p.Locate(name)
		return place{path, mount}, err
	})
	if err == nil {
		return at.path, at.mount, nil
	}
	var errno syscall.Errno
	errors.As(err, &errno)
	switch errno {
	case syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP, syscall.ENAMETOOLONG, syscall.EINVAL:
		return "", 0, problem.New(problem.PathMissing, name, errno)
	case syscall.EACCES, syscall.EPERM:
		return "", 0, problem.New(problem.NotAllowed, name, errno)
	}
	return "", 0, problem.New(problem.VolumeLost, name, err)
}

// relative returns the path within the volume of a canonical path that m shows.
func relative(m Mount, canonical string) string {
	below := strings.TrimPrefix(canonical, m.Point) // "" or "/a", of "/" without the slash
	rel := strings.Trim(path.Join(m.Root, below), "/")
	if rel == "" {
		return "."
	}
	return rel
}
