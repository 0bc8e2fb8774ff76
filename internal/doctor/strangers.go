package doctor

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// How much of a selection is looked at for other backups, those names first that
// are less deep.
const (
	lookedAt  = 200_000 // names
	lookTime  = 20 * time.Second
	namedMost = 10 // places
)

// Others looks for other backups in the selection: the repositories of restic,
// borg, kopia, duplicity and ourselves, files of Backup Exec, and dumps and
// copies of databases beside these. The look is bounded, which it says.
func Others(s Subject) Check {
	return Check{Name: "other backups", Limit: lookTime + usualLimit, Look: func(ctx context.Context) ([]Finding, error) {
		if s.whole() {
			return none("no paths were given"), nil
		}
		if len(s.Entered()) == 0 {
			return none(notEntered), nil
		}
		w := &search{s: s, until: time.Now().Add(lookTime)}
		w.walk(ctx)
		return w.findings(), ctx.Err()
	}}
}

// notEntered is said where nothing can be looked into.
const notEntered = "all that is selected lies on a server, or on what does not answer"

const (
	insideMeans  = "it is backed up each time it changes, which is after each run of that other backup; it takes much room, and is lost with the disk"
	insideAdvice = "leave it out (--exclude), or keep it on another volume; databases are better backed up at rest: see `stillpoint writers`"
)

// A search goes through what is selected, level by level.
type search struct {
	s     Subject
	until time.Time
	seen  int
	cut   bool // not all was looked at

	inside []place  // other backups
	dumps  []string // of databases
	live   []string // directories of databases
}

type place struct{ path, what string }

func (w *search) walk(ctx context.Context) {
	for level := w.s.Entered(); len(level) > 0; {
		var next []string
		for _, dir := range level {
			if w.over(ctx) {
				return
			}
			next = append(next, w.directory(ctx, dir)...)
		}
		level = next
	}
}

// over tells whether no more is looked at.
func (w *search) over(ctx context.Context) bool {
	w.cut = w.cut || ctx.Err() != nil || w.seen >= lookedAt || time.Now().After(w.until)
	return w.cut
}

// directory looks at the names in a directory and returns those in it to go on
// with.
func (w *search) directory(ctx context.Context, dir string) (next []string) {
	var entries []fs.DirEntry
	w.s.list(ctx, dir, func(_ *os.File, part []fs.DirEntry) bool {
		entries, w.seen = append(entries, part...), w.seen+len(part)
		return len(part) == 0 || !w.over(ctx)
	})
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Name()] = true
	}
	if what := w.s.repositoryOf(dir, names); what != "" {
		w.inside = append(w.inside, place{dir, what})
		return nil
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !w.s.holds(path) || w.s.foreign(path) {
			continue
		}
		if e.IsDir() {
			next = append(next, path)
		} else if e.Type().IsRegular() {
			w.file(dir, path, e)
		}
	}
	return next
}

func (w *search) file(dir, path string, e fs.DirEntry) {
	name := strings.ToLower(e.Name())
	switch {
	case hasSuffix(name, ".bkf", ".vbk", ".vib", ".aiv", ".aii"):
		w.inside = append(w.inside, place{path, "a file of another backup program"})
	case hasSuffix(name, ".bak", ".dump", ".sql", ".sql.gz", ".sql.bz2", ".sql.xz", ".sql.zst", ".pgdump"):
		if len(w.dumps) < lookedAt/100 {
			w.dumps = append(w.dumps, path)
		}
	case name == "pg_version" || name == "ibdata1" || hasSuffix(name, ".mdf", ".sqlite", ".sqlite3", ".db", ".ibd", ".rdb"):
		if len(w.live) == 0 || w.live[len(w.live)-1] != dir {
			w.live = append(w.live, dir)
		}
	}
}

// repositoryOf tells whose repository a directory is, by the names in it.
func (s Subject) repositoryOf(dir string, names map[string]bool) string {
	has := func(all ...string) bool {
		for _, n := range all {
			if !names[n] {
				return false
			}
		}
		return true
	}
	switch {
	case has("config", "data", "index", "keys", "snapshots"):
		return "a repository of restic"
	case has("config", "data", "README") && strings.Contains(s.beginning(filepath.Join(dir, "config")), "[repository]"):
		return "a repository of borg"
	case has("kopia.repository.f"), has("kopia.repository"):
		return "a repository of Stillpoint or kopia"
	case has("rdiff-backup-data"):
		return "a repository of rdiff-backup"
	}
	for n := range names {
		if strings.HasPrefix(n, "duplicity-full") || strings.HasPrefix(n, "duplicity-inc") {
			return "a repository of duplicity"
		}
		if strings.HasPrefix(n, "duplicati-") && strings.Contains(n, ".dlist.") {
			return "a repository of Duplicati"
		}
	}
	return ""
}

// beginning is the first bytes of a file, empty where it cannot be read.
func (s Subject) beginning(path string) string {
	f, err := s.open(path, file.Regular)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 64)
	n, _ := f.Read(b)
	return string(b[:n])
}

func hasSuffix(name string, suffixes ...string) bool {
	for _, s := range suffixes {
		if strings.HasSuffix(name, s) {
			return true
		}
	}
	return false
}

func (w *search) findings() (fs []Finding) {
	all := w.inside
	for _, d := range w.dumps {
		if live := w.beside(filepath.Dir(d)); live != "" {
			all = append(all, place{d, "a copy of a database, by its name, beside the live one in " + live})
		}
	}
	for i, p := range all {
		if i == namedMost {
			fs = append(fs, warned(problem.BackupInside, "", "and %d more", len(all)-i).so(insideMeans, insideAdvice))
			break
		}
		fs = append(fs, warned(problem.BackupInside, p.path, "is %s", p.what).so(insideMeans, insideAdvice))
	}
	switch {
	case len(fs) > 0:
	case w.cut:
		fs = append(fs, fine("no other backup is among the first %d names; there are more", w.seen))
	default:
		fs = append(fs, fine("no other backup is among the %d names", w.seen))
	}
	return fs
}

// beside is a directory with a database that is dir, or little above it or below it.
func (w *search) beside(dir string) string {
	for _, l := range w.live {
		far := strings.Count(l, "/") - strings.Count(dir, "/")
		if (within(dir, l) || within(l, dir)) && far >= -2 && far <= 2 {
			return l
		}
	}
	return ""
}
