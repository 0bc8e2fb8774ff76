package script

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"stillpoint/internal/problem"
)

// leavings are files that editors and package managers leave. The QEMU guest
// agent's fsfreeze-hook leaves out the same.
var leavings = []string{"*~", "*.bak", "*.orig", "*.rpmnew", "*.rpmorig", "*.rpmsave", "*.sample", "*.dpkg-old", "*.dpkg-new", "*.dpkg-tmp", "*.dpkg-dist", "*.dpkg-bak"}

// list returns the scripts of a directory in the order of their names. What is
// not executable is none: a text that explains. An executable that others than
// root could have written is refused, and with it all.
func list(dir string) ([]string, error) {
	if err := safe(dir, fs.ModeDir); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, understood(dir, err)
	}
	var all []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := e.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, understood(path, err)
		case e.IsDir(), info.Mode()&0o111 == 0, slices.ContainsFunc(leavings, func(p string) bool { return matches(p, e.Name()) }):
			continue
		}
		if err := safe(path, 0); err != nil {
			return nil, err
		}
		all = append(all, path)
	}
	return all, nil
}

func matches(pattern, name string) bool {
	ok, _ := filepath.Match(pattern, name) // the patterns are good
	return ok
}

// safe is nil when a file is of the type, root's, and nobody else may write to
// it.
func safe(path string, want fs.FileMode) error {
	info, err := os.Lstat(path)
	if err != nil {
		return understood(path, err)
	}
	switch {
	case info.Mode().Type() != want && want == fs.ModeDir:
		return problem.Newf(problem.WriterRights, path, "it is no directory")
	case info.Mode().Type() != want:
		return problem.Newf(problem.WriterRights, path, "it is no regular file; links are not followed")
	case info.Sys().(*syscall.Stat_t).Uid != 0:
		return problem.Newf(problem.WriterRights, path, "it does not belong to root, and would be run as root")
	case info.Mode()&0o022 != 0:
		return problem.Newf(problem.WriterRights, path, "others than root may write to it, and it would be run as root")
	}
	return nil
}

// understood gives an error of a file its code.
func understood(path string, err error) error {
	code := problem.WriterFailed
	switch {
	case errors.Is(err, fs.ErrNotExist):
		code = problem.WriterGone
	case errors.Is(err, fs.ErrPermission):
		code = problem.WriterRights
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		code = problem.WriterResources
	}
	return problem.New(code, path, err)
}
