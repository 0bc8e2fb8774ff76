package file

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// List calls each for every name in the directory fd, from its start and
// without "." and "..", in no order, with the kind and the inode that the
// directory itself knows: where something is mounted, those of what it hides.
// The name is valid until each returns; an error of each ends the list. buf is
// where the kernel writes to, some ten KiB at best.
func List(fd int, buf []byte, each func(name []byte, kind Kind, inode uint64) error) error {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return failed("lseek", "", err)
	}
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return failed("getdents", "", err)
		}
		if n == 0 {
			return nil
		}
		if err := parse(buf[:n], each); err != nil {
			return err
		}
	}
}

// parse reads what getdents64(2) wrote: inode and offset in 64 bits each, the
// record's length in 16, d_type in 8, then the name up to a NUL.
func parse(b []byte, each func(name []byte, kind Kind, inode uint64) error) error {
	const head = 19
	for len(b) > head {
		length := int(binary.NativeEndian.Uint16(b[16:]))
		if length <= head || length > len(b) {
			return failed("getdents", "", unix.EBADMSG)
		}
		name, _, _ := bytes.Cut(b[head:length], []byte{0})
		inode := binary.NativeEndian.Uint64(b)
		kind := Kind(b[18]) << 12 // DT_ values are those of S_IFMT (dirent.h: DTTOIF)
		b = b[length:]
		if string(name) == "." || string(name) == ".." {
			continue
		}
		if err := each(name, kind, inode); err != nil {
			return err
		}
	}
	return nil
}

// MakeDirectory makes name in dir for the owner alone.
func MakeDirectory(dir int, name string) error {
	return result("mkdirat", name, unix.Mkdirat(dir, name, 0o700))
}

// MakeSticky is MakeDirectory with the sticky bit, which means nothing where nobody else
// may write: it marks the directory from its first moment on.
func MakeSticky(dir int, name string) error {
	return result("mkdirat", name, unix.Mkdirat(dir, name, 0o1700))
}

// MakeSymlink makes name in dir.
func MakeSymlink(dir int, name, target string) error {
	return result("symlinkat", name, unix.Symlinkat(target, dir, name))
}

// MakeNode makes a FIFO, a socket or a device file for the owner alone.
func MakeNode(dir int, name string, kind Kind, node uint64) error {
	return result("mknodat", name, unix.Mknodat(dir, name, uint32(kind)|0o600, int(node)))
}

// Link gives the open file fd the name name in dir. It fails with EEXIST when
// there is one.
func Link(fd int, dir int, name string) error {
	err := unix.Linkat(fd, "", dir, name, unix.AT_EMPTY_PATH)
	// Without CAP_DAC_READ_SEARCH older kernels say ENOENT; by /proc it is
	// allowed (open(2), O_TMPFILE).
	if err == unix.ENOENT {
		err = unix.Linkat(Here, procPath(fd, ""), dir, name, unix.AT_SYMLINK_FOLLOW)
	}
	return result("linkat", name, err)
}

// Replace gives what is named from the name to, both in dir, in place of
// whatever has it.
func Replace(dir int, from, to string) error {
	return result("renameat", to, unix.Renameat(dir, from, dir, to))
}

// Rename is Replace that fails with EEXIST where the name is taken. Some file
// systems cannot promise that and say EINVAL.
func Rename(dir int, from, to string) error {
	return result("renameat2", to, unix.Renameat2(dir, from, dir, to, unix.RENAME_NOREPLACE))
}

// Remove removes a name that is not a directory's.
func Remove(dir int, name string) error {
	return result("unlinkat", name, unix.Unlinkat(dir, name, 0))
}

// RemoveDirectory removes an empty directory.
func RemoveDirectory(dir int, name string) error {
	return result("unlinkat", name, unix.Unlinkat(dir, name, unix.AT_REMOVEDIR))
}

// Lock takes the exclusive flock of fd, which Close gives back. It fails with
// EWOULDBLOCK when another holder has it.
func Lock(fd int) error {
	return result("flock", "", unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB))
}

// LockShared takes the flock of fd as one of several holders, which Close gives
// back. It fails with EWOULDBLOCK when an exclusive holder has it.
func LockShared(fd int) error {
	return result("flock", "", unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB))
}

// SyncFS writes everything of the file system of fd to its device, and reports
// what could not be written since fd was opened.
func SyncFS(fd int) error {
	return result("syncfs", "", unix.Syncfs(fd))
}
