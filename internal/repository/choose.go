package repository

import (
	"context"
	"path/filepath"
	"strings"

	"stillpoint/internal/problem"
)

// Latest is the word for the newest backup.
const Latest = "latest"

// ParseSpec takes BACKUP[:PATH] apart. The path is a live path, absolute and
// clean, or empty.
func ParseSpec(s string) (backup, path string, err error) {
	backup, path, found := strings.Cut(s, ":")
	switch {
	case backup == "":
		return "", "", problem.Newf(problem.Usage, s, "no backup named; say %q or the id of one before the colon", Latest)
	case !found:
		return backup, "", nil
	case !strings.HasPrefix(path, "/"):
		return "", "", problem.Newf(problem.Usage, s, "the path after the colon must begin with /")
	}
	return backup, filepath.Clean(path), nil
}

// Choose finds one backup among all of a host ("" is any): "latest", an id or
// a unique prefix of one. With a path, "latest" is the newest that can hold it;
// only where none can, the newest that holds something below it.
func Choose(all []Backup, host, name, path string) (Backup, error) {
	var found []Backup
	var part *Backup
	for i, b := range all {
		if host != "" && b.Host != host && name == Latest {
			continue
		}
		if name == Latest {
			if path == "" || b.holder(path) != nil {
				return b, nil
			}
			if part == nil && len(b.under(path)) > 0 {
				part = &all[i]
			}
			continue
		}
		if b.ID == name {
			return b, nil
		}
		if strings.HasPrefix(b.ID, name) {
			found = append(found, b)
		}
	}
	switch {
	case part != nil:
		return *part, nil
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return Backup{}, problem.Newf(problem.BackupAmbiguous, name, "%d backups begin so: %s and %s among them", len(found), found[0].ID, found[1].ID)
	case name == Latest && path != "":
		return Backup{}, problem.Newf(problem.NoSuchBackup, name, "no backup%s holds %s", of(host), path)
	case name == Latest:
		return Backup{}, problem.Newf(problem.NoSuchBackup, name, "there is no backup%s yet", of(host))
	}
	return Backup{}, problem.Newf(problem.NoSuchBackup, name, "no backup has this id")
}

func of(host string) string {
	if host == "" {
		return ""
	}
	return " of host " + host
}

// holder returns the tree in which path lies, the innermost one.
func (b *Backup) holder(path string) *Tree {
	var t *Tree
	for i := range b.Trees {
		if b.Trees[i].Holds(path) && (t == nil || len(b.Trees[i].Path) > len(t.Path)) {
			t = &b.Trees[i]
		}
	}
	return t
}

// under returns the trees below a directory, which stands for them.
func (b *Backup) under(path string) []*Tree {
	var out []*Tree
	for i := range b.Trees {
		if _, ok := below(path, b.Trees[i].Path); ok {
			out = append(out, &b.Trees[i])
		}
	}
	return out
}

// Selected is a place in a backup.
type Selected struct {
	Tree   *Tree
	Path   string // live path
	Record Record
}

// Select returns what path names in the backup, the trees below it included;
// without a path, all trees.
func (r *Repository) Select(ctx context.Context, b *Backup, path string) ([]Selected, error) {
	var out []Selected
	if path == "" {
		for i := range b.Trees {
			t := &b.Trees[i]
			out = append(out, Selected{t, t.Path, t.Root})
		}
		return out, nil
	}
	holder, under := b.holder(path), b.under(path)
	if holder != nil {
		rec, err := r.Lookup(ctx, holder, path)
		switch {
		case err == nil:
			out = append(out, Selected{holder, path, rec})
		case len(under) == 0 || problem.CodeOf(err) != problem.NotInBackup:
			return nil, err
		}
	}
	for _, t := range under {
		if t != holder {
			out = append(out, Selected{t, t.Path, t.Root})
		}
	}
	if len(out) == 0 {
		return nil, problem.Newf(problem.NotInBackup, path, "backup %s holds %s", b.ID, strings.Join(b.Paths(), ", "))
	}
	return out, nil
}
