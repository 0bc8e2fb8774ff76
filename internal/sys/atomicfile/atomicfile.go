// Package atomicfile writes a file so that, whatever happens, its name leads
// either to all of the new content, on disk, or to what was there before; and
// so that a kill -9 leaves no half of it behind where the file system can help
// it (O_TMPFILE: ext4, XFS, btrfs, tmpfs and most others since Linux 3.11 to 3.16).
package atomicfile

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Write makes path hold what data writes. It is synced, and so is its folder,
// when Write returns. Errors are errno, wrapped.
func Write(path string, mode os.FileMode, data io.WriterTo) error {
	dir := filepath.Dir(path)
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, uint32(mode.Perm()))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) {
		return writeNamed(path, mode, data)
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := fill(f, data); err != nil {
		return err
	}
	if err := link(f, path); err != nil {
		return err
	}
	return syncDir(dir)
}

// link gives an unnamed file its name. linkat cannot replace, so a name that
// exists already is replaced by way of a temporary one.
func link(f *os.File, path string) error {
	from := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	err := unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if !errors.Is(err, unix.EEXIST) {
		return pathError("link", path, err)
	}
	tmp := temporary(path)
	if err := unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, tmp, unix.AT_SYMLINK_FOLLOW); err != nil {
		return pathError("link", tmp, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

func writeNamed(path string, mode os.FileMode, data io.WriterTo) error {
	tmp := temporary(path)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer f.Close()
	err = fill(f, data)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

func fill(f *os.File, data io.WriterTo) error {
	if _, err := data.WriteTo(f); err != nil {
		return err
	}
	return f.Sync()
}

func temporary(path string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, since Go 1.24)
	return path + ".tmp." + hex.EncodeToString(b[:])
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// Some file systems (9p, some FUSE) cannot sync a directory; there is
	// nothing better to do on them.
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}
