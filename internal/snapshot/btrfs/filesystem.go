package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/btrfs"
	"stillpoint/internal/sys/file"
	"stillpoint/internal/sys/mount"
	"stillpoint/internal/volume"
)

// A filesystem is a btrfs whose top level is mounted for us alone.
type filesystem struct {
	uuid   btrfs.UUID
	twin   bool     // another device has the UUID that is on its disk, too
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
	f, err := openTop(v)
	if err == nil && f.twin {
		f.close()
		return nil, problem.Newf(problem.SnapshotFailed, string(v.ID), "another device has the UUID %s, too: one is a block-wise copy of the other. "+
			"The kernel knows the file system on %s, which was mounted later, only by the temporary UUID %s, so a snapshot of it would not be known again. "+
			"Give it an UUID of its own (unmount it, btrfstune -u %s), or mount it alone (unmount both, btrfs device scan --forget)", v.UUID, v.Source, f.uuid, v.Source)
	}
	return f, err
}

// openTop is open for any subvolume of the file system, and for a twin.
func openTop(v volume.Volume) (*filesystem, error) {
	var why error
	for _, device := range devices(v) {
		f, err := mountTop(device, v)
		if err == nil {
			return f, nil
		}
		why = errors.Join(why, err)
	}
	switch {
	case why == nil:
		return nil, problem.Newf(problem.VolumeLost, string(v.ID), "no device of it has a path")
	case errors.Is(why, fs.ErrPermission):
		return nil, problem.New(problem.NotAllowed, string(v.ID), fmt.Errorf("to mount its top level needs CAP_SYS_ADMIN on the host, not only in a container: %w", why))
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

// onOne tells whether one of these device numbers is that of a device of v, as
// far as these are known. Others may have been added or replaced since.
func onOne(v volume.Volume, numbers ...string) bool {
	known := false
	for _, d := range v.Stack {
		if d.Level == 0 {
			known = true
			if slices.Contains(numbers, d.Number) {
				return true
			}
		}
	}
	return !known || len(numbers) == 0
}

// mountTop mounts the top level of the btrfs on a device, which must be v's.
func mountTop(device string, v volume.Volume) (*filesystem, error) {
	// The name may be another device's by now, whose file system is not to be
	// mounted. Between here and there it may still become that: so verify.
	number, err := btrfs.DeviceNumber(device)
	if err != nil {
		return nil, err
	}
	if !onOne(v, number) {
		return nil, fmt.Errorf("%s is device %s by now", device, number)
	}
	f := &filesystem{}
	if err = f.mountTop(device); err == nil {
		err = f.verify(v)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// mountTop mounts. Since the file system is mounted already this is one more
// mount of the same superblock, and "ro" keeps the kernel from making a
// superblock writable that is not (mount_subvol() before Linux 6.8,
// btrfs_reconfigure_for_mount() since); the mount itself is writable all the
// same. If it is one that was not mounted, "ro" and "nologreplay" keep the
// kernel from writing to it; for one that is, the latter is not looked at.
func (f *filesystem) mountTop(device string) (err error) {
	options := []mount.Option{
		{Key: "source", Value: device}, {Key: "ro"}, {Key: "rescue", Value: "nologreplay"},
		{Key: "subvolid", Value: fmt.Sprint(btrfs.TopLevel)},
	}
	f.mount, err = mount.Open("btrfs", options, mount.NoDevices|mount.NoSetUID|mount.NoExecute|mount.NoAtime)
	if err != nil {
		return err
	}
	f.top, err = mount.OpenBelow(f.mount, ".")
	return err
}

// verify makes sure that what was mounted is the file system of v.
func (f *filesystem) verify(v volume.Volume) error {
	d, err := btrfs.Describe(f.top)
	if err != nil {
		return err
	}
	// The transaction that runs may have changes that come after us.
	f.uuid, f.before = d.UUID, d.Generation
	// Where two devices have the same UUID, the kernel gives the one that is
	// mounted later a temporary one (Linux 6.7; before, it does not mount it).
	f.twin = f.uuid.String() != v.UUID && d.OnDisk.String() == v.UUID
	switch {
	case f.uuid.String() != v.UUID && !f.twin:
		return fmt.Errorf("%s has file system %s by now", f.mount.Name(), f.uuid)
	case !onOne(v, btrfs.DeviceNumbers(f.uuid)...):
		return fmt.Errorf("file system %s is on other devices by now", f.uuid)
	}
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

// answerLimit is how long a path may take to be looked up: something that does
// not answer may be mounted there by now.
const answerLimit = 2 * time.Second

// locate tells which subvolume a regular file lies in.
func locate(ctx context.Context, path string) (subvolume, error) {
	type answer struct {
		subvolume
		err error
	}
	told := make(chan answer, 1) // one that hangs is left behind
	go func() {
		s, err := ask(path)
		told <- answer{s, err}
	}()
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	select {
	case a := <-told:
		return a.subvolume, a.err
	case <-ctx.Done():
		return subvolume{}, fmt.Errorf("look up %s: %w", path, ctx.Err())
	}
}

// ask is locate, for as long as it takes. Nothing but a regular file is
// opened: a FIFO would wait, and a device might do something.
func ask(path string) (subvolume, error) {
	place, err := file.Open(file.Here, path, file.Place|file.Final)
	if err != nil {
		return subvolume{}, err
	}
	defer file.Close(place)
	st, err := file.Stat(place, "", file.Itself|file.Cached)
	if err != nil {
		return subvolume{}, err
	}
	if st.Kind != file.Regular {
		return subvolume{}, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", place), os.O_RDONLY|syscall.O_NONBLOCK, 0)
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
