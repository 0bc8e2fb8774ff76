package btrfs

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"stillpoint/internal/fault"
	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/mount"
)

// folderName is the directory in the top level that holds everything of ours:
//
//	.stillpoint/SET.set            the record of a set
//	.stillpoint/SET/ID/snapshot    the snapshot of the subvolume ID
const (
	folderName   = snapshot.Own
	snapshotName = "snapshot"
)

// A folder is an open .stillpoint directory.
//
// One that we made is tagged with the file system, and only that is ever
// removed. Until it is tagged it has the mode that nobody else gives to a folder of
// this name: a kill between making and tagging leaves that.
//
// It lies in a directory that may be a user's, who can then rename it, but not
// move it elsewhere or change what is in it. So everything goes by descriptor,
// and one that was renamed is found by its inode.
type folder struct {
	dir   *os.File
	inode uint64
}

// openFolder opens the folder, or returns nil where there is none. One that
// was not made by us is refused.
func openFolder(top *os.File, name string) (*folder, error) {
	dir, err := openMaybe(top, name)
	switch {
	case err == nil && dir == nil:
		return nil, nil
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
		return nil, foreign("", "is not a directory")
	case err != nil:
		return nil, coded(folderName, err)
	}
	f := &folder{dir: dir}
	if err := f.check(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// check makes sure that nobody but root can have put anything there, and that
// it is a directory of the top level itself.
func (f *folder) check() error {
	st, err := file.Stat(fd(f.dir), "", file.Itself)
	if err != nil {
		return coded(folderName, err)
	}
	f.inode = st.Inode
	s, err := btrfs.Ask(f.dir)
	switch {
	case err != nil:
		return coded(folderName, err)
	case s.ID != btrfs.TopLevel:
		return foreign("", "is a subvolume")
	case st.UID != 0, st.Mode&0o022 != 0:
		return foreign("", "can be written by others than root")
	}
	return nil
}

func (f *folder) close() { f.dir.Close() }

// makeFolder opens the folder, made if need be, and its lock, so that it stays
// until what is put there is there.
func makeFolder(ctx context.Context, top *os.File) (f *folder, lock io.Closer, err error) {
	for {
		err := createFolder(top)
		if err == nil {
			fault.Point("btrfs:folder-made")
		} else if !errors.Is(err, syscall.EEXIST) && !errors.Is(err, syscall.ENOENT) { // removed before it was tagged
			return nil, nil, coded(folderName, err)
		}
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		f, err := openFolder(top, folderName)
		if err != nil {
			return nil, nil, err
		}
		if f == nil {
			continue // removed meanwhile
		}
		lock, err := f.lock(ctx)
		if err != nil {
			f.close()
			return nil, nil, err
		}
		if f.named(top) {
			return f, lock, nil
		}
		lock.Close()
		f.close()
	}
}

// Modes of the folder: of MakeSticky, and once it is tagged.
const (
	untaggedMode = 0o1700
	taggedMode   = 0o700
)

// createFolder makes the folder, tagged, or fails with EEXIST.
func createFolder(top *os.File) error {
	if err := file.MakeSticky(fd(top), folderName); err != nil {
		return err
	}
	dir, err := mount.OpenBelow(top, folderName)
	if err != nil {
		return err
	}
	defer dir.Close()
	d, err := btrfs.Describe(dir)
	if err == nil {
		err = file.SetXattr(fd(dir), recordTag, []byte(d.UUID.String()))
	}
	if err == nil {
		err = file.SetMode(fd(dir), taggedMode)
	}
	if err != nil {
		_ = file.RemoveDirectory(fd(top), folderName) // it has no tag by which it could be done later
	}
	return err
}

// ours tells whether the folder is what we made: it is tagged, or was about to be.
func (f *folder) ours() (bool, error) {
	d, err := btrfs.Describe(f.dir)
	if err != nil {
		return false, coded(folderName, err)
	}
	var xattrs file.Xattrs
	value, err := xattrs.Get(fd(f.dir), "", file.Itself, recordTag)
	if errors.Is(err, syscall.ENODATA) {
		st, err := file.Stat(fd(f.dir), "", file.Itself)
		return st.Mode == untaggedMode, coded(folderName, err)
	}
	return string(value) == d.UUID.String(), coded(folderName, err)
}

// lock takes the lock of the folder, which is held for moments only. Closing
// gives it back.
func (f *folder) lock(ctx context.Context) (io.Closer, error) {
	lock, err := mount.OpenBelow(f.dir, ".")
	if err != nil {
		return nil, coded(folderName, err)
	}
	for {
		err := file.Lock(fd(lock))
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			lock.Close()
			return nil, coded(folderName, err)
		}
		select {
		case <-ctx.Done():
			lock.Close()
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// named tells whether f is what the name leads to.
func (f *folder) named(top *os.File) bool {
	st, err := file.Stat(fd(top), folderName, file.NoFollow)
	return err == nil && st.Inode == f.inode
}

// removeFolder removes the folder f, or if that is nil the one at its place, if
// it is ours and empty and nobody is about to put something there.
func removeFolder(ctx context.Context, top *os.File, f *folder) error {
	if f == nil {
		var err error
		if f, err = openFolder(top, folderName); f == nil || err != nil {
			return err
		}
		defer f.close()
	}
	lock, err := f.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	if ours, err := f.ours(); !ours || err != nil {
		return err
	}
	name, err := nameOf(top, f.inode)
	if name == "" || err != nil {
		return coded(folderName, err)
	}
	err = file.RemoveDirectory(fd(top), name)
	// Somebody may have put something there, or mounted something on it.
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return coded(folderName, err)
}

// openMaybe opens a directory below dir, or returns nil where there is none.
func openMaybe(dir *os.File, name string) (*os.File, error) {
	f, err := mount.OpenBelow(dir, name)
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	return f, err
}

// foreign is the problem of something in the folder that is not provably ours.
func foreign(name, why string) error {
	if name != "" {
		name = "/" + name
	}
	return problem.Newf(problem.LeftoverForeign, folderName+name, "%s; it is not touched", why)
}

func fd(f *os.File) int { return int(f.Fd()) }
