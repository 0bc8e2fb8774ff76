package postgres

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"stillpoint/internal/sys/container"
)

// paths are the directories of a cluster: the data directory, where its
// symbolic links lead, and where its tablespaces are. Logs are no data. An error
// says that some of these cannot be seen.
func (s server) paths() (all []string, err error) {
	data := s.data
	all = []string{data}
	for _, dir := range []string{data, filepath.Join(data, "pg_tblspc")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.Type() != fs.ModeSymlink || e.Name() == "log" || e.Name() == "pg_log" {
				continue
			}
			p, perr := s.resolve(filepath.Join(dir, e.Name()))
			if perr != nil {
				err = perr
			} else if !slices.ContainsFunc(all, func(a string) bool { return below(p, a) }) {
				all = append(all, p)
			}
		}
	}
	return all, err
}

// elsewhere tells whether the server sees its data at another path than we do.
func (s server) elsewhere() bool { return s.inside != "" && s.inside != s.data }

// resolve is where a path below the data directory leads, as we see it. In a
// container symbolic links lead to what is there.
func (s server) resolve(path string) (string, error) {
	if !s.elsewhere() {
		return filepath.EvalSymlinks(path)
	}
	return container.Path(s.pid, filepath.Join(s.inside, strings.TrimPrefix(path, s.data)))
}

func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
