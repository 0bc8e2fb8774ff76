package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"stillpoint/internal/problem"
)

// livePath is the path of name in dir, put together only when it is needed;
// without dir it is name.
type livePath struct {
	dir  *Dir
	name string
}

func (p livePath) String() string {
	if p.dir == nil {
		return p.name
	}
	return joined(p.dir.Path(), p.name)
}

// errEmptied says that nothing is in a directory that is shown as empty.
var errEmptied = fmt.Errorf("the directory is left empty: %w", fs.ErrNotExist)

// unread gives a failure to read what is at a path its code.
func unread(at livePath, err error) error {
	code := problem.FileUnreadable
	if isOneOf(err, fs.ErrNotExist, syscall.ESTALE, errReplaced) {
		code = problem.FileVanished
	}
	return problem.New(code, at.String(), err)
}

func unreadOrNil(at livePath, err error) error {
	if err == nil {
		return nil
	}
	return unread(at, err)
}

// unopened is unread for what was seen before: what has another type now has
// changed.
func unopened(at livePath, err error) error {
	if isOneOf(err, syscall.ELOOP, syscall.ENOTDIR, syscall.ENXIO, syscall.ENODEV) {
		return problem.New(problem.FileChanged, at.String(), err)
	}
	return unread(at, err)
}

// unwritten gives a failure to write at a path of the target its code. Only
// with target-full and target-lost makes it no sense to go on.
func unwritten(path string, err error) error {
	code := problem.TargetLost
	switch {
	case isOneOf(err, syscall.ENOSPC, syscall.EDQUOT):
		code = problem.TargetFull
	case isOneOf(err, syscall.EACCES, syscall.EPERM):
		code = problem.NotAllowed
	case isOneOf(err, syscall.ELOOP, syscall.ENOTDIR, syscall.ENOENT, errReplaced):
		code = problem.TargetUnsafe // somebody changes the target meanwhile
	case isOneOf(err, syscall.ENAMETOOLONG, syscall.EINVAL, syscall.EILSEQ, syscall.EFBIG, syscall.EOVERFLOW, syscall.EOPNOTSUPP, syscall.EMLINK):
		code = problem.TargetRefused
	}
	return problem.New(code, path, err)
}

func isOneOf(err error, some ...error) bool {
	for _, one := range some {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}
