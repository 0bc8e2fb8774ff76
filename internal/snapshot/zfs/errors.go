package zfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/mount"
)

// newSpace makes private mounts, or says what is in the way.
func newSpace() (*mount.Space, error) {
	const subject = "private mounts"
	s, err := mount.NewSpace()
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, problem.New(problem.NotAllowed, subject, fmt.Errorf("a mount namespace needs CAP_SYS_ADMIN, and in a chroot CAP_SYS_CHROOT: %w", err))
	}
	return nil, problem.New(problem.SnapshotFailed, subject, err)
}

// coded gives a failure of ZFS its code.
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
		// EDQUOT is also what a snapshot_limit that is reached gives.
		code = problem.SnapshotFull
	case gone(err), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		code = problem.VolumeLost
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EIO):
		// POOL_CHECK_SUSPENDED in zfs_ioctl.c.
		err = fmt.Errorf("the pool is suspended, or its disks give errors: %w", err)
		code = problem.ZFSStuck
	}
	return problem.New(code, subject, err)
}

func foreign(name, why string) error {
	return problem.Newf(problem.LeftoverForeign, name, "%s; it is not touched", why)
}
