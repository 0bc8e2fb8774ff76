package doctor

import (
	"slices"
	"strings"

	"stillpoint/internal/volume"
)

// A Host is where the files of the kernel and the configuration of the system
// are. Recorded hosts have them in a scratch directory.
type Host struct {
	Proc string // "/proc"
	Etc  string // "/etc"
}

// Here is this host.
func Here() Host { return Host{Proc: "/proc", Etc: "/etc"} }

// A Subject is what the checks are about.
type Subject struct {
	Table    *volume.Table
	Paths    []string               // selected, live, resolved; none for the whole host
	Volumes  []volume.Volume        // that hold something of them, or all with data of this host
	Excludes func(path string) bool // tells what is left out of the selection; may be nil

	other  map[string]bool // where volumes are mounted that hold no data of this host, or do not answer
	barred map[string]bool // selected paths that lie on a server, or on what does not answer
}

// NewSubject finds the volumes of paths, and of what is mounted below them.
func NewSubject(t *volume.Table, paths []string, excludes func(path string) bool) (Subject, error) {
	s := Subject{Table: t, Paths: slices.Clone(paths), Excludes: excludes, other: map[string]bool{}, barred: map[string]bool{}}
	add := func(v volume.Volume) {
		if v.Kind == volume.Local && !slices.ContainsFunc(s.Volumes, func(w volume.Volume) bool { return w.ID == v.ID }) {
			s.Volumes = append(s.Volumes, v)
		}
	}
	for _, v := range t.Volumes() {
		for _, m := range v.Mounts {
			if (v.Kind != volume.Local || deaf(v)) && !m.Hidden {
				s.other[m.Point] = true
			}
		}
	}
	if len(paths) == 0 {
		for _, v := range t.Volumes() {
			add(v)
		}
	}
	for i := range paths {
		path, err := t.Resolve(paths[i])
		if err != nil {
			return s, err
		}
		s.Paths[i] = path
		v, _, _, err := t.Find(path)
		if err != nil {
			return s, err
		}
		add(v)
		s.barred[path] = v.Kind == volume.Network || deaf(v)
		for _, b := range t.Below(path) {
			if s.holds(b.Mount.Point) {
				add(b.Volume)
			}
		}
	}
	return s, nil
}

// deaf tells whether a volume did not even tell its size (volume.Read): who enters it
// waits, too.
func deaf(v volume.Volume) bool { return v.Kind == volume.Local && v.Size == 0 }

// Entered are the selected paths that lie neither on a server nor on what does not
// answer.
func (s Subject) Entered() []string {
	return slices.DeleteFunc(slices.Clone(s.Paths), func(p string) bool { return s.barred[p] })
}

// foreign tells whether something is mounted at a path that holds no data of this
// host, or does not answer: it is not entered, for it may hang.
func (s Subject) foreign(path string) bool { return s.other[path] }

// whole tells whether it is about all of the host.
func (s Subject) whole() bool { return len(s.Paths) == 0 }

// holds tells whether a live path is in the selection.
func (s Subject) holds(path string) bool {
	if s.Excludes != nil && s.Excludes(path) {
		return false
	}
	return s.whole() || slices.ContainsFunc(s.Paths, func(p string) bool { return within(p, path) })
}

// within tells whether path is dir or lies below it.
func within(dir, path string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// at is where a volume is first mounted.
func at(v volume.Volume) string {
	for _, m := range v.Mounts {
		if !m.Hidden {
			return m.Point
		}
	}
	return string(v.ID)
}
