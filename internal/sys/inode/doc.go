// Package inode reaches inodes without their names: by the file handle that
// the file system gives each, which tells an inode from a later one of the same
// number, and by descriptors that keep a deleted inode alive. It knows what
// statx(2) and the handles of ext4 and XFS hold, and no word of the product. A
// failure is the kernel's errno in an fs.PathError with the call.
package inode

import "io/fs"

func failed(call, object string, err error) error {
	return &fs.PathError{Op: call, Path: object, Err: err}
}
