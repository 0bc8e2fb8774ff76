package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
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

// What is found when a file is opened that was seen before.
var (
	errOtherFile = errors.New("another file has taken its place")
	errLeased    = errors.New("another process holds a lease on the file and does not give it up")
)

// unread gives a failure to read what is at a path its code.
func unread(at livePath, err error) error {
	code := problem.FileUnreadable
	if isOneOf(err, fs.ErrNotExist, syscall.ESTALE, errReplaced) {
		code = problem.FileVanished
	}
	return problem.New(code, at.String(), said(err))
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
	if isOneOf(err, errOtherFile, syscall.ELOOP, syscall.ENOTDIR, syscall.ENXIO, syscall.ENODEV) {
		return problem.New(problem.FileChanged, at.String(), said(err))
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
	case isOneOf(err, syscall.ELOOP, syscall.ENOTDIR, syscall.ENOENT, errReplaced, errOtherFile):
		code = problem.TargetUnsafe // somebody changes the target meanwhile
	case isOneOf(err, syscall.ENAMETOOLONG, syscall.EINVAL, syscall.EILSEQ, syscall.EFBIG, syscall.EOVERFLOW, syscall.EOPNOTSUPP, syscall.EMLINK):
		code = problem.TargetRefused
	}
	return problem.New(code, path, said(err))
}

func isOneOf(err error, some ...error) bool {
	for _, one := range some {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// said is an error of the kernel without the name in it, because the problem
// that it becomes part of has the whole path.
func said(err error) error {
	if p, ok := err.(*fs.PathError); ok {
		return os.NewSyscallError(p.Op, p.Err)
	}
	return err
}

// several are errors in one line.
type several []error

func (s several) Error() string {
	var b strings.Builder
	for i, err := range s {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

func (s several) Unwrap() []error { return s }

// join is errors.Join for a line of a log.
func join(errs ...error) error {
	var s several
	for _, err := range errs {
		if err != nil {
			s = append(s, err)
		}
	}
	switch len(s) {
	case 0:
		return nil
	case 1:
		return s[0]
	}
	return s
}
