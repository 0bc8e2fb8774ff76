package tree

import (
	"errors"
	"io/fs"
	"strconv"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/file"
)

// A Spot is a place that was reached without following a symbolic link, and
// stays that place whatever is renamed.
type Spot struct{ fd int }

// Beneath reaches rel ("." for dir itself) below the directory at path dir. A
// symbolic link on the way is file-changed: the way was resolved when the
// backup was planned, and whoever puts a link there since would lead the
// reading elsewhere, out of a snapshot for instance. live names the place for
// people.
func Beneath(dir, rel, live string) (*Spot, error) {
	fd, err := file.OpenBeneath(dir, rel)
	switch {
	case err == nil:
		return &Spot{fd}, nil
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR):
		return nil, problem.Newf(problem.FileChanged, live, "a directory on the way there became something else: %w", said(err))
	case errors.Is(err, fs.ErrNotExist):
		return nil, problem.New(problem.PathMissing, live, said(err))
	}
	return nil, unread(livePath{name: live}, err)
}

// Root is a value for Source.Root and Graft.Root, until Close.
func (s *Spot) Root() string { return "/proc/self/fd/" + strconv.Itoa(s.fd) }

// Close gives the place up.
func (s *Spot) Close() error { return file.Close(s.fd) }
