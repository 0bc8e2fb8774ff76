package page

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"stillpoint/internal/job"
	"stillpoint/internal/job/text"
)

// A size is a directory in the tree of sizes.
type size struct {
	Name, Bytes, Share string
	Open               bool // shown with what is below
	Rest               bool // not one directory, but all that is told nowhere else
	Below              []*size

	of job.Directory
}

// sizes makes a tree of directories, each level the largest first.
func sizes(all []job.Directory) (roots []*size) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b job.Directory) int { return strings.Compare(a.Path, b.Path) })
	made := map[string]*size{}
	var total int64
	for _, d := range all {
		s := &size{of: d}
		made[d.Path] = s
		up := above(made, d.Path)
		if up == nil {
			s.Name, s.Open = text.Printable(d.Path), true
			roots = append(roots, s)
			total += d.Bytes
			continue
		}
		s.Name = text.Printable(strings.TrimPrefix(strings.TrimPrefix(d.Path, up.of.Path), "/"))
		up.Below = append(up.Below, s)
	}
	for _, s := range made {
		s.finish(total)
	}
	slices.SortFunc(roots, larger)
	return roots
}

// above is the nearest directory above a path that is told.
func above(made map[string]*size, of string) *size {
	for of != "/" && of != "." {
		of = path.Dir(of)
		if s := made[of]; s != nil {
			return s
		}
	}
	return nil
}

func larger(a, b *size) int {
	return cmp.Or(cmp.Compare(b.of.Bytes, a.of.Bytes), strings.Compare(a.of.Path, b.of.Path))
}

// finish fills in what all below is needed for.
func (s *size) finish(total int64) {
	s.Bytes, s.Share = text.Size(s.of.Bytes), share(s.of.Bytes, total)
	slices.SortFunc(s.Below, larger)
	rest := s.of.Bytes
	for _, b := range s.Below {
		rest -= b.of.Bytes
	}
	if len(s.Below) > 0 && rest > 0 {
		s.Below = append(s.Below, &size{Name: "files and smaller directories", Rest: true, Bytes: text.Size(rest), Share: share(rest, total)})
	}
}

func share(part, of int64) string {
	if of <= 0 {
		return "0"
	}
	return percent(float64(part) / float64(of))
}
