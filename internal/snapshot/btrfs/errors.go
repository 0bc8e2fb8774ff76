package btrfs

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
	case errors.Is(err, syscall.ENOSPC): // not a full disk (unshare(2))
		return nil, problem.New(problem.SnapshotFailed, subject,
			fmt.Errorf("the limit of mount namespaces or of mounts is reached: see the sysctls user.max_mnt_namespaces and fs.mount-max: %w", err))
	}
	return nil, problem.New(problem.SnapshotFailed, subject, err)
}

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
