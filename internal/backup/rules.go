package backup

import (
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/bmatcuk/doublestar/v4"

	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
	"stillpoint/internal/volume"
)

// rules decide by name what is left out.
type rules struct {
	patterns []*pattern
	repo     repoPlace
	own      map[string]bool // live paths of our own folders in the roots of volumes
	policy   map[string]bool // live paths of applications that are left out; they are named already
	gaps     map[string]bool // live paths that snapshots do not show; they are named already
}

// A pattern is one of the user's.
type pattern struct {
	given string
	globs []string // what is compared: as it was given, and where symbolic links lead
	used  atomic.Bool
}

// repoPlace is where the repository itself lies, so that it does not back up
// itself: by live path, and by inode for other mounts of the same volume.
type repoPlace struct {
	path   string
	inode  uint64
	volume volume.ID
}

// Reasons that appear in reports.
const (
	reasonExcluded   = "excluded by "
	reasonRepository = "the repository itself"
	reasonOwn        = "Stillpoint's own folder"
	reasonGap        = "gap" // does not appear: it is reported with its own reason
)

// newRules checks the patterns. A pattern without a slash is compared with
// every name; one that begins with a slash with the whole live path; any other
// with the end of the live path. `**` stands for any number of directories.
func newRules(patterns []string, repo repoPlace) (*rules, error) {
	r := &rules{repo: repo, policy: map[string]bool{}}
	for _, given := range patterns {
		p := given
		if p == "" || !doublestar.ValidatePattern(p) {
			return nil, problem.Newf(problem.Usage, p, "not a valid exclude pattern")
		}
		if p != "/" {
			p = strings.TrimSuffix(p, "/")
		}
		if slices.ContainsFunc(strings.Split(p, "/"), func(s string) bool { return s == "." || s == ".." }) {
			return nil, problem.Newf(problem.Usage, p, "an exclude pattern is a name, or an absolute path without . and ..")
		}
		globs := []string{p}
		if live := resolved(p); live != p {
			globs = append(globs, live)
		}
		r.patterns = append(r.patterns, &pattern{given: given, globs: globs})
	}
	return r, nil
}

// resolved is an absolute pattern with the symbolic links on its way followed,
// up to the first name with a wildcard: the paths it is compared with are
// resolved, too.
func resolved(pattern string) string {
	if !strings.HasPrefix(pattern, "/") {
		return pattern
	}
	base, rest := doublestar.SplitPattern(pattern)
	if !strings.ContainsAny(rest, `*?[{\\`) {
		base, rest = pattern, ""
	}
	real, err := filepath.EvalSymlinks(base)
	if err != nil {
		return pattern
	}
	return filepath.Join(real, rest)
}

// match returns the first pattern that a live path fits, or "". The others are
// only looked at until each was of some use.
func (r *rules) match(path string) string {
	first := ""
	for _, p := range r.patterns {
		if first != "" && p.used.Load() {
			continue
		}
		for _, glob := range p.globs {
			if fits(glob, path) {
				p.used.Store(true)
				if first == "" {
					first = glob
				}
			}
		}
	}
	return first
}

func fits(glob, path string) bool {
	switch {
	case strings.HasPrefix(glob, "/"):
	case strings.Contains(glob, "/"):
		glob = "/**/" + glob
	default:
		path = filepath.Base(path)
	}
	ok, err := doublestar.Match(glob, path)
	return ok && err == nil
}

// unused lists the patterns that fitted nothing, as they were given.
func (r *rules) unused() (all []string) {
	for _, p := range r.patterns {
		if !p.used.Load() {
			all = append(all, p.given)
		}
	}
	return all
}

// knows tells whether a reason is one of the rules'.
func (r *rules) knows(reason string) bool {
	return reason == reasonRepository || reason == reasonOwn || strings.HasPrefix(reason, reasonExcluded)
}

// leavesOut tells whether a policy leaves a path out, itself or with a directory
// above it.
func (r *rules) leavesOut(path string) bool {
	for p := path; ; p = filepath.Dir(p) {
		if r.policy[p] {
			return true
		}
		if p == "/" {
			return false
		}
	}
}

// excludes tells whether a path below a selected one is excluded, itself or
// with a directory above it.
func (r *rules) excludes(selected, path string) bool {
	for p := path; p != selected && p != "/"; p = filepath.Dir(p) {
		if r.match(p) != "" {
			return true
		}
	}
	return false
}

// leave is tree.Source.Leave.
func (r *rules) leave(path string, e *tree.Entry, vol string) string {
	if path == r.repo.path || r.repo.is(e, vol) {
		return reasonRepository
	}
	if r.own[path] {
		return reasonOwn
	}
	if r.gaps[path] || r.policy[path] {
		return reasonGap
	}
	if p := r.match(path); p != "" {
		return reasonExcluded + p
	}
	return ""
}

// is tells whether e is the repository's folder, seen through another mount.
func (p *repoPlace) is(e *tree.Entry, vol string) bool {
	return p.inode != 0 && e.Inode == p.inode && e.Type == tree.Directory && vol == string(p.volume)
}
