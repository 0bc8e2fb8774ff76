package btrfs

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"stillpoint/internal/problem"
)

// coded gives a failure of the kernel its code.
func coded(subject string, err error) error {
	if err == nil || problem.CodeOf(err) != problem.Uncatalogued ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	code := problem.SnapshotFailed
	switch {
	case errors.Is(err, fs.ErrPermission):
		code = problem.NotAllowed
	case errors.Is(err, syscall.EROFS):
		code = problem.VolumeReadOnly
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		code = problem.SnapshotFull
	case errors.Is(err, syscall.ETXTBSY):
		code = problem.SwapActive
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		code = problem.VolumeLost
	}
	return problem.New(code, subject, err)
}
