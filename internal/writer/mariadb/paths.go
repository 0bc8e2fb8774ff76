package mariadb

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"stillpoint/internal/sys/container"
)

// pathsOf are the data directory, further directories that the server names,
// and where files of the data directory are in truth: by symbolic links, by
// the .isl files of InnoDB (tables with a DATA DIRECTORY), and by mounts and
// subvolumes, which a snapshot of the volume would not have.
//
// resolve tells where a path leads; an error says that one of them cannot be seen.
func pathsOf(data string, further []string, resolve func(string) (string, error)) (all []string, err error) {
	add := func(path string) {
		p, perr := resolve(path)
		if perr != nil {
			err = perr
		} else if !slices.ContainsFunc(all, func(a string) bool { return below(p, a) }) {
			all = append(all, p)
		}
	}
	add(data)
	if len(all) == 0 {
		return nil, err
	}
	data = all[0]
	for _, dir := range further {
		if dir == "" {
			continue
		}
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(data, dir)
		}
		add(dir)
	}
	dev := device(data)
	for _, e := range entries(data) {
		path := filepath.Join(data, e.Name())
		if e.IsDir() && device(path) != dev {
			all = append(all, path)
		}
		for _, p := range elsewhere(path, e) {
			add(p)
		}
		if e.IsDir() {
			for _, in := range entries(path) {
				for _, p := range elsewhere(filepath.Join(path, in.Name()), in) {
					add(p)
				}
			}
		}
	}
	return all, err
}

// elsewhere tells whether the server sees its data at another path than we do.
func (s server) elsewhere() bool { return s.inside != "" && s.inside != s.data }

// resolve is where a path leads, as we see it: one below the data directory as
// that shows to us, or any as the server knows it.
func (s server) resolve(path string) (string, error) {
	if !s.elsewhere() {
		return filepath.EvalSymlinks(path)
	}
	if below(path, s.data) {
		path = filepath.Join(s.inside, strings.TrimPrefix(path, s.data))
	}
	return container.Path(s.pid, path)
}

// elsewhere is where an entry of a directory leads, if it does.
func elsewhere(path string, e fs.DirEntry) []string {
	switch {
	case e.Type() == fs.ModeSymlink:
		return []string{path}
	case strings.HasSuffix(e.Name(), ".isl"):
		if b, err := os.ReadFile(path); err == nil {
			return []string{filepath.Dir(strings.TrimSpace(string(b)))}
		}
	}
	return nil
}

func entries(dir string) []fs.DirEntry {
	all, _ := os.ReadDir(dir) // what goes away meanwhile has no files
	return all
}

func device(path string) uint64 {
	st, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	return uint64(st.Sys().(*syscall.Stat_t).Dev)
}

func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
