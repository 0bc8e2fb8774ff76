package tree

import (
	"errors"
	"path/filepath"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// SyncVolume writes what is dirty on the file system of a directory or a file
// to the device. Afterwards the next store into each mapped page sets the times
// of its file again (the kernel has to make the page writable anew), so that a
// live reading from then on can tell by them what changed.
func SyncVolume(path string) error {
	fd, err := file.Open(file.Here, path, file.Read|file.Directory)
	if errors.Is(err, syscall.ENOTDIR) {
		fd, err = file.Open(file.Here, filepath.Dir(path), file.Read|file.Directory)
	}
	if err != nil {
		return problem.New(problem.FileUnreadable, path, said(err))
	}
	defer file.Close(fd)
	if err := file.SyncFS(fd); err != nil {
		return problem.New(problem.FileUnreadable, path, said(err))
	}
	return nil
}
