package mariadb

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// pathsOf are the data directory, further directories that the server names,
// and where files of the data directory are in truth: by symbolic links, by
// the .isl files of InnoDB (tables with a DATA DIRECTORY), and by mounts and
// subvolumes, which a snapshot of the volume would not have.
func pathsOf(data string, further []string) []string {
	var all []string
	add := func(path string) {
		p, err := filepath.EvalSymlinks(path)
		if err == nil && !slices.ContainsFunc(all, func(a string) bool { return below(p, a) }) {
			all = append(all, p)
		}
	}
	add(data)
	if len(all) == 0 {
		return nil
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
	return all
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
