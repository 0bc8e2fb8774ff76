package tree

import (
	"errors"
	"strings"
	"syscall"

	"stillpoint/internal/sys/file"
)

// A graftPoint is a directory on the way to grafts, or one itself.
type graftPoint struct {
	graft *Graft // nil: only on the way
	below map[string]*graftPoint
}

// graftPoints puts the grafts below path in order; nil when there are none.
func graftPoints(path string, grafts []Graft) *graftPoint {
	top := &graftPoint{}
	for i, g := range grafts {
		rest, found := strings.CutPrefix(g.Path, strings.TrimSuffix(path, "/")+"/")
		if !found || rest == "" {
			continue
		}
		at := top
		for name := range strings.SplitSeq(rest, "/") {
			if at.below == nil {
				at.below = map[string]*graftPoint{}
			}
			if at.below[name] == nil {
				at.below[name] = &graftPoint{}
			}
			at = at.below[name]
		}
		at.graft = &grafts[i]
	}
	if top.below == nil {
		return nil
	}
	return top
}

// at is the point name below p, nil if there is none. p may be nil.
func (p *graftPoint) at(name string) *graftPoint {
	if p == nil {
		return nil
	}
	return p.below[name]
}

func (g *Graft) empty() bool { return g.Root == "" && g.Direct == nil }

// shown is the graft at p if it shows something. p may be nil.
func (p *graftPoint) shown() *Graft {
	if p == nil || p.graft == nil || p.graft.empty() {
		return nil
	}
	return p.graft
}

// emptied tells whether p is left as an empty directory. p may be nil.
func (p *graftPoint) emptied() bool {
	return p != nil && p.graft != nil && p.graft.empty()
}

// each calls f for every graft at p and below with its path.
func (p *graftPoint) each(path string, f func(path string)) {
	if p.graft != nil {
		f(path)
	}
	for name, below := range p.below {
		below.each(joined(path, name), f)
	}
}

// A spot is where an object is found: by directory and name, or by path.
type spot struct {
	dir    int
	name   string
	at     file.At
	folder *folder // to be given back, unless nil
}

func (s spot) give() {
	if s.folder != nil {
		s.folder.give()
	}
}

// opening is the mode that opens what is at the spot and nothing it links to.
func (s spot) opening(mode file.Mode) file.Mode {
	if s.at&file.NoFollow != 0 {
		mode |= file.Final
	}
	return mode
}

// readlink returns the target of the symbolic link at the spot. A link of
// /proc that leads to it would be read itself.
func (s spot) readlink() (string, error) {
	if s.at&file.NoFollow != 0 {
		return file.Readlink(s.dir, s.name)
	}
	fd, err := file.Open(s.dir, s.name, file.Place)
	if err != nil {
		return "", err
	}
	target, err := file.Readlink(fd, "")
	return target, join(err, file.Close(fd))
}

// spotOfRoot is where the root of a source or a graft is. A selected symbolic
// link is the link itself; but the links of /proc/PID/fd, which show
// snapshots, lead to the object that they stand for.
func spotOfRoot(path string) (spot, error) {
	s := spot{dir: file.Here, name: path, at: file.NoFollow}
	info, err := file.Stat(s.dir, s.name, s.at)
	if err != nil || info.Kind != file.Symlink {
		return s, err
	}
	fd, err := file.Open(s.dir, s.name, file.Place|file.Final)
	if errors.Is(err, syscall.ELOOP) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	fs, err := file.FSType(fd)
	if fs == file.ProcFS {
		s.at = file.Follow
	}
	return s, join(err, file.Close(fd))
}
