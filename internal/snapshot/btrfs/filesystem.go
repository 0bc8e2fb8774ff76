package btrfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/mount"
	"stillpoint/internal/volume"
)

// A filesystem is a btrfs whose top level is mounted for us alone.
type filesystem struct {
	uuid   btrfs.UUID
	mount  *os.File // the mount itself, to be attached
	top    *os.File // its root directory
	before uint64   // transactions before this one are older than what was planned by
	tree   *tree
	folder *folder
	record *record
}

// open mounts the file system that v is part of.
func open(v volume.Volume) (*filesystem, error) {
	if v.FSType != "btrfs" || v.Subvolume == nil {
		return nil, problem.Newf(problem.NoProvider, string(v.ID), "is %s, not btrfs", v.FSType)
	}
	if v.Subvolume.ID == 0 || v.Subvolume.Path == "" {
		return nil, problem.Newf(problem.VolumeLost, string(v.ID), "its subvolume was deleted")
	}
	return openTop(v)
}

// openTop is open for any subvolume of the file system.
func openTop(v volume.Volume) (*filesystem, error) {
	var why error
	for _, device := range devices(v) {
		f, err := mountTop(device)
		if err != nil {
			why = errors.Join(why, err)
			continue
		}
		if f.uuid.String() == v.UUID {
			return f, nil
		}
		why = errors.Join(why, fmt.Errorf("%s has file system %s by now", device, f.uuid))
		f.close()
	}
	switch {
	case why == nil:
		return nil, problem.Newf(problem.VolumeLost, string(v.ID), "no device of it has a path")
	case errors.Is(why, fs.ErrPermission):
		return nil, problem.New(problem.NotAllowed, string(v.ID), why)
	case errors.Is(why, syscall.EBUSY), errors.Is(why, syscall.ENOSYS):
		// It is there, but cannot be mounted once more: for SELinux,
		// when its mounts set a context, or on a kernel that is too old.
		return nil, problem.New(problem.SnapshotFailed, string(v.ID), why)
	}
	return nil, problem.New(problem.VolumeLost, string(v.ID), why)
}

// devices lists the paths at which a device of v may be found.
func devices(v volume.Volume) []string {
	var paths []string
	if strings.HasPrefix(v.Source, "/") {
		paths = append(paths, v.Source)
	}
	for _, d := range v.Stack {
		if d.Level == 0 {
			paths = append(paths, "/dev/"+strings.ReplaceAll(d.Name, "!", "/"), "/dev/block/"+d.Number)
		}
	}
	return slices.Compact(paths)
}

// mountTop mounts the top level of the btrfs on a device. Since the file system
// is mounted already this is one more mount of the same superblock, and "ro"
// keeps the kernel from making a superblock writable that is not (mount_subvol()
// before Linux 6.8, btrfs_reconfigure_for_mount() since); the mount itself is
// writable all the same.
func mountTop(device string) (*filesystem, error) {
	f := &filesystem{}
	if err := f.mountTop(device); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *filesystem) mountTop(device string) (err error) {
	options := []mount.Option{{Key: "source", Value: device}, {Key: "ro"}, {Key: "subvolid", Value: fmt.Sprint(btrfs.TopLevel)}}
	f.mount, err = mount.Open("btrfs", options, mount.NoDevices|mount.NoSetUID|mount.NoExecute|mount.NoAtime)
	if err != nil {
		return err
	}
	if f.top, err = mount.OpenBelow(f.mount, "."); err != nil {
		return err
	}
	d, err := btrfs.Describe(f.top)
	if err != nil {
		return err
	}
	// The transaction that runs may have changes that come after us.
	f.uuid, f.before = d.UUID, d.Generation
	return nil
}

// writable is nil when the file system can be written.
func (f *filesystem) writable() error {
	ok, err := mount.Writable(f.top)
	if err != nil {
		return coded(f.uuid.String(), err)
	}
	if !ok {
		return problem.Newf(problem.VolumeReadOnly, f.uuid.String(), "the file system is read-only")
	}
	return nil
}

func (f *filesystem) close() {
	for _, c := range []*os.File{f.top, f.mount} {
		if c != nil {
			c.Close()
		}
	}
	if f.folder != nil {
		f.folder.close()
	}
	if f.record != nil {
		f.record.close()
	}
}

// locate tells which subvolume a file lies in.
func locate(path string) (subvolume, error) {
	f, err := os.Open(path)
	if err != nil {
		return subvolume{}, err
	}
	defer f.Close()
	d, err := btrfs.Describe(f)
	if err != nil {
		return subvolume{}, err
	}
	s, err := btrfs.Ask(f)
	return subvolume{d.UUID, s.ID}, err
}
