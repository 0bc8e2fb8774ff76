package btrfs

import (
	"errors"
	"os"
	"strconv"
	"syscall"

	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/file"
)

// strays lists the folders that were renamed and have a snapshot of ours, by
// their inodes with the name of one of their sets. The list of subvolumes,
// which nobody can hide from, leads there: of each read-only one that is called
// as ours are, up to the directory SET and to the folder. That proves nothing
// yet. A renamed folder without any snapshot is not found: it holds no space.
func strays(top *os.File) (map[uint64]string, error) {
	list, err := btrfs.List(top)
	if err != nil {
		return nil, err
	}
	found := map[uint64]string{}
	for _, e := range list {
		if e.Within != btrfs.TopLevel || e.Name != snapshotName || !e.ReadOnly {
			continue
		}
		dir, place, err := btrfs.Parent(top, btrfs.TopLevel, e.Dir)
		if errors.Is(err, syscall.ENOENT) {
			continue // gone since, or in no directory
		}
		if err != nil {
			return nil, err
		}
		inode, set, err := btrfs.Parent(top, btrfs.TopLevel, dir)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if _, err := strconv.ParseUint(place, 10, 64); err == nil && validID(set) {
			found[inode] = set
		}
	}
	return found, nil
}

// nameOf is the name of a directory in the top level, "" where there is none.
// In a list of names the number of a subvolume is its id, which may be the same.
// The record of its name in the tree would not do: after a rename it is for a
// while the old one, too (btrfs_delayed_delete_inode_ref()).
func nameOf(top *os.File, inode uint64) (string, error) {
	if st, err := file.Stat(fd(top), folderName, file.NoFollow); err == nil && st.Inode == inode {
		return folderName, nil
	}
	found := ""
	dir, err := openMaybe(top, ".") // to read it from its beginning
	if dir == nil || err != nil {
		return "", err
	}
	defer dir.Close()
	err = file.List(fd(dir), make([]byte, 32<<10), func(name []byte, kind file.Kind, i uint64) error {
		if i != inode || kind != file.Folder {
			return nil
		}
		if st, err := file.Stat(fd(dir), string(name), file.NoFollow); err == nil && st.Inode == inode {
			found = string(name)
		}
		return nil
	})
	return found, err
}

// findFolder opens the folder with this inode, or returns nil where it is gone.
func findFolder(top *os.File, inode uint64) (*folder, error) {
	name, err := nameOf(top, inode)
	if name == "" || err != nil {
		return nil, coded(folderName, err)
	}
	f, err := openFolder(top, name)
	if f != nil && f.inode != inode {
		f.close()
		return nil, nil // renamed again; the next run finds it
	}
	return f, err
}
