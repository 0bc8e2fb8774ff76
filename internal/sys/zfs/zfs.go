// Package zfs speaks to ZFS by the ioctls of /dev/zfs: snapshots are made, held,
// described and destroyed, by name. It knows the calls that take all they need as an
// nvlist ("new style", ZFS 0.6.4 and later) and the one that describes a dataset, and
// no other: their numbers, and the part of the argument that they read, are those of
// ZFS 2.3.9 (include/sys/fs/zfs.h, include/sys/zfs_ioctl.h). It knows
// no word of the product, starts no program, and writes no file. A failure is the
// kernel's errno in an fs.PathError with the call and the object, or Failures, which
// say it for each snapshot.
package zfs

import (
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// path is the device of the module.
const path = "/dev/zfs"

// The calls (zfs_ioc_t).
const (
	iocStats    = 0x5a12 // ZFS_IOC_OBJSET_STATS
	iocSnapshot = 0x5a23 // ZFS_IOC_SNAPSHOT
	iocHold     = 0x5a30 // ZFS_IOC_HOLD
	iocRelease  = 0x5a31 // ZFS_IOC_RELEASE
	iocSpace    = 0x5a3a // ZFS_IOC_SPACE_SNAPS
	iocDestroy  = 0x5a3b // ZFS_IOC_DESTROY_SNAPS
	iocSync     = 0x5a47 // ZFS_IOC_POOL_SYNC
)

// MaxName is how long the name of a dataset or snapshot may be
// (ZFS_MAX_DATASET_NAME_LEN, with its final zero).
const MaxName = 255

// A Device is /dev/zfs, open. Its methods may be called from several goroutines.
type Device struct{ f *os.File }

// Open opens it. It does not exist where the module is not loaded.
func Open() (*Device, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &Device{f}, nil
}

// Loaded tells whether there is the module. To open its device would load one that is
// only installed: the node is made at boot (the module's alias "devname:zfs").
func Loaded() bool {
	_, err := os.Stat("/sys/module/zfs")
	return err == nil
}

// Close ends the holds that were made through it.
func (d *Device) Close() error { return d.f.Close() }

// Failures are the names that a call failed for, each with its reason. Others may
// not have been tried.
type Failures map[string]error

func (f Failures) Error() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		all = append(all, name+": "+f[name].Error())
	}
	return strings.Join(all, "; ")
}

// Unwrap returns the reasons.
func (f Failures) Unwrap() []error {
	var all []error
	for _, name := range slices.Sorted(maps.Keys(f)) {
		all = append(all, f[name])
	}
	return all
}

// A Snapshotting is a call that makes snapshots, ready to be made.
type Snapshotting struct {
	pool string
	args []byte
}

// NewSnapshotting prepares to make all these snapshots, "DATASET@NAME", of datasets of
// one pool, with user properties.
func NewSnapshotting(pool string, names []string, properties map[string]string) Snapshotting {
	snaps, props := flags(names), list{}
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		props = append(props, pair{name, properties[name]})
	}
	return Snapshotting{pool, list{{"snaps", snaps}, {"props", props}}.pack()}
}

// Snapshot makes the snapshots, all of one instant, or none.
func (d *Device) Snapshot(s Snapshotting) error {
	return d.call("ZFS_IOC_SNAPSHOT", iocSnapshot, s.pool, s.args)
}

// Hold keeps snapshots of a pool from being destroyed until Release is called with
// the same tag, or the Device is closed, be it by the end of the process.
func (d *Device) Hold(pool, tag string, names []string) error {
	holds := list{}
	for _, name := range names {
		holds = append(holds, pair{name, tag})
	}
	args := list{{"holds", holds}, {"cleanup_fd", int32(d.f.Fd())}}
	return d.call("ZFS_IOC_HOLD", iocHold, pool, args.pack())
}

// Release ends holds. Where there is none, or no snapshot, Failures say ENOENT or ESRCH.
func (d *Device) Release(pool, tag string, names []string) error {
	var args list
	for _, name := range names {
		args = append(args, pair{name, flags([]string{tag})})
	}
	return d.call("ZFS_IOC_RELEASE", iocRelease, pool, args.pack())
}

// Destroy destroys snapshots of a pool: all of them, or none. Those that do not exist
// are destroyed already.
func (d *Device) Destroy(pool string, names []string) error {
	return d.call("ZFS_IOC_DESTROY_SNAPS", iocDestroy, pool, list{{"snaps", flags(names)}}.pack())
}

// Sync writes what is dirty in a pool to its disks.
func (d *Device) Sync(pool string) error {
	return d.call("ZFS_IOC_POOL_SYNC", iocSync, pool, list{{"force", false}}.pack())
}

// Kept is how many bytes the end of two snapshots of a dataset, and of all that were made
// between them, would give back.
func (d *Device) Kept(first, last string) (uint64, error) {
	answer, err := d.ask("ZFS_IOC_SPACE_SNAPS", iocSpace, last, list{{"firstsnap", first}}.pack())
	if err != nil {
		return 0, err
	}
	l, err := unpack(answer)
	used, ok := l.get("used").(uint64)
	if err == nil && !ok {
		err = errPacked
	}
	if err != nil {
		return 0, failed("ZFS_IOC_SPACE_SNAPS", last, err)
	}
	return used, nil
}

func flags(names []string) list {
	l := list{}
	for _, name := range names {
		l = append(l, pair{name, nil})
	}
	return l
}

// Stats are what a dataset or snapshot says about itself.
type Stats struct {
	GUID       uint64 // of a received copy of a snapshot it is the same
	CreateTXG  uint64 // the transaction group that made it
	Created    time.Time
	Used       uint64            // bytes, with those of datasets in it; of a snapshot, what its end gives back
	Available  uint64            // bytes, as quotas and the pool allow
	Quota      uint64            // bytes that Used may come to; 0 where there is none
	Properties map[string]string // those of users, "NAMESPACE:NAME", inherited ones, too
}

// Stats describes a dataset or snapshot.
func (d *Device) Stats(name string) (Stats, error) {
	answer, err := d.ask("ZFS_IOC_OBJSET_STATS", iocStats, name, nil)
	if err != nil {
		return Stats{}, err
	}
	l, err := unpack(answer)
	if err != nil {
		return Stats{}, failed("ZFS_IOC_OBJSET_STATS", name, err)
	}
	return stats(l), nil
}

func stats(l list) Stats {
	s := Stats{Properties: map[string]string{}}
	for _, p := range l {
		property, _ := p.value.(list)
		switch v := property.get("value").(type) {
		case uint64:
			switch p.name {
			case "guid":
				s.GUID = v
			case "createtxg":
				s.CreateTXG = v
			case "used":
				s.Used = v
			case "available":
				s.Available = v
			case "quota":
				s.Quota = v
			case "creation":
				s.Created = time.Unix(int64(v), 0)
			}
		case string:
			if strings.Contains(p.name, ":") {
				s.Properties[p.name] = v
			}
		}
	}
	return s
}

// The beginning of zfs_cmd_t, which is all that the calls here use. The kernel copies
// the whole, which is shorter than this; it is given more, in case it grows.
type command struct {
	name            [4096]byte
	source          uint64
	sourceSize      uint64
	destination     uint64
	destinationSize uint64
	filled          int32 // the kernel has written a list
	_               [32<<10 - 4096 - 36]byte
}

// call makes a call whose answer, if there is one, are errors by name.
func (d *Device) call(call string, request uintptr, pool string, args []byte) error {
	answer, err := d.ask(call, request, pool, args)
	if err == nil || len(answer) == 0 {
		return err
	}
	l, bad := unpack(answer)
	if bad != nil {
		return err
	}
	failures := Failures{}
	for _, p := range l {
		if errno, ok := p.value.(int32); ok && strings.Contains(p.name, "@") {
			failures[p.name] = unix.Errno(errno)
		}
	}
	if len(failures) == 0 {
		return err
	}
	return failures
}

// firstAnswer is room for an answer; the kernel says when it is too little.
const firstAnswer = 256 << 10

// ask makes a call and returns the list that the kernel wrote, also beside an error.
func (d *Device) ask(call string, request uintptr, name string, args []byte) ([]byte, error) {
	if len(name) >= MaxName+1 {
		return nil, failed(call, name, unix.ENAMETOOLONG)
	}
	for room := firstAnswer; ; room *= 4 {
		answer := make([]byte, room)
		c := &command{destinationSize: uint64(room)}
		copy(c.name[:], name)
		var pins runtime.Pinner
		pins.Pin(&answer[0])
		c.destination = uint64(uintptr(unsafe.Pointer(&answer[0])))
		if len(args) > 0 {
			pins.Pin(&args[0])
			c.source, c.sourceSize = uint64(uintptr(unsafe.Pointer(&args[0]))), uint64(len(args))
		}
		pins.Pin(c)
		errno := d.ioctl(request, unsafe.Pointer(c))
		pins.Unpin()
		if errno == unix.ENOMEM && room < 64<<20 && request == iocStats {
			continue
		}
		if c.filled == 0 && request != iocStats {
			answer = nil
		}
		if errno != 0 {
			return answer, failed(call, name, errno)
		}
		return answer, nil
	}
}

func (d *Device) ioctl(request uintptr, arg unsafe.Pointer) unix.Errno {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), request, uintptr(arg))
		runtime.KeepAlive(d)
		if errno != unix.EINTR {
			return errno
		}
	}
}

func failed(call, object string, err error) error {
	return &fs.PathError{Op: call, Path: object, Err: err}
}

var _ = [1]int{}[unsafe.Sizeof(command{})-32<<10] // no padding
