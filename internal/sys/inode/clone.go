package inode

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Clone mounts the directory dir once more, where nobody else finds it, and
// returns the root of that mount, open for reading. Nothing that is or will be
// mounted below dir shows there; it stays when dir is unmounted; no access
// through it changes anything, not even access times, and device files cannot
// be opened. It ends with the last descriptor in it. It needs Linux 5.12.
func Clone(dir *os.File) (*os.File, error) {
	return clone(dir, unix.MOUNT_ATTR_RDONLY)
}

// CloneWritable is Clone, but that files can be made and written through it,
// where they can through dir.
func CloneWritable(dir *os.File) (*os.File, error) { return clone(dir, 0) }

func clone(dir *os.File, more uint64) (*os.File, error) {
	tree, err := unix.OpenTree(int(dir.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	runtime.KeepAlive(dir)
	if err != nil {
		return nil, failed("open_tree", dir.Name(), err)
	}
	defer unix.Close(tree)
	// The clone of a shared mount gets what is mounted on the original later
	// (mount_namespaces(7)), unless it is private.
	attr := unix.MountAttr{
		Attr_set:    more | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOATIME,
		Attr_clr:    unix.MOUNT_ATTR__ATIME,
		Propagation: unix.MS_PRIVATE,
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return nil, failed("mount_setattr", dir.Name(), err)
	}
	// What open_tree returns is good for mounting only; open_by_handle_at
	// and fanotify_mark want an open directory.
	fd, err := unix.Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, failed("openat", dir.Name(), err)
	}
	return os.NewFile(uintptr(fd), dir.Name()), nil
}
