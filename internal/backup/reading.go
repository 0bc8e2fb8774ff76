package backup

import (
	"cmp"
	"strings"

	"stillpoint/internal/tree"
)

// A reading is a source as the tree reader takes it, with the places that it
// is read from held open.
type reading struct {
	tree.Source
	spots []*tree.Spot
}

// reading opens the places where a source is read: in the snapshots of c, or
// live.
func (s *source) reading(c *capture) (*reading, error) {
	r := &reading{Source: tree.Source{Path: s.path}}
	if err := s.fill(r, c); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (s *source) fill(r *reading, c *capture) error {
	at, vol, err := r.place(&s.place, s.path, c)
	if err != nil {
		return err
	}
	r.Root, r.Direct, r.Volume = at.root, at.direct, vol
	for _, g := range s.grafts {
		t := tree.Graft{Path: g.path}
		if !g.empty {
			at, vol, err := r.place(&g.place, g.path, c)
			if err != nil && g.within != "" {
				continue // gone meanwhile; what is there now, the reader names
			}
			if err != nil {
				return err
			}
			t.Root, t.Direct, t.Volume = at.root, at.direct, vol
		}
		r.Grafts = append(r.Grafts, t)
	}
	// What a snapshot is made of shows below each place of its volume,
	// unless something is mounted over it.
	if err := s.parts(r, c, s.place, s.path); err != nil {
		return err
	}
	for _, g := range s.grafts {
		if !g.empty {
			if err := s.parts(r, c, g.place, g.path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *source) parts(r *reading, c *capture, at place, shown string) error {
	snap := c.snap(at.volume.ID)
	if snap == nil {
		return nil
	}
	for i, part := range snap.Parts() {
		live, ok := at.live(part.Path)
		if i == 0 || !ok || !within(shown, live) || live == shown || hidden(s.grafts, shown, live) {
			continue
		}
		in, err := r.site(c, at.volume.ID, part.Path, live)
		if err != nil {
			return err
		}
		r.Grafts = append(r.Grafts, tree.Graft{Path: live, Root: in.root, Direct: in.direct, Volume: string(part.Volume)})
	}
	return nil
}

// open holds a place open and returns where it can be read.
func (r *reading) open(dir, rel, live string) (string, error) {
	spot, err := tree.Beneath(dir, rel, live)
	if err != nil {
		return "", err
	}
	r.spots = append(r.spots, spot)
	return spot.Root(), nil
}

func (r *reading) close() {
	for _, s := range r.spots {
		s.Close() // it was only opened to be a place: there is nothing to lose
	}
}

// place opens where a place is read, and tells the identity of the volume
// there.
func (r *reading) place(p *place, live string, c *capture) (at site, vol string, err error) {
	snap := c.snap(p.volume.ID)
	if snap == nil {
		rel := strings.TrimPrefix(live, "/")
		if rel == "" {
			rel = "."
		}
		at.root, err = r.open("/", rel, live)
		return at, string(cmp.Or(p.part, p.volume.ID)), err
	}
	vol = string(p.volume.ID)
	// The innermost part that holds the path.
	for _, part := range snap.Parts() {
		if part.Path == "." || within(part.Path, p.rel) {
			vol = string(part.Volume)
		}
	}
	at, err = r.site(c, p.volume.ID, p.rel, live)
	return at, vol, err
}

// live is the live path of a path in the volume, as the place's mount shows it.
