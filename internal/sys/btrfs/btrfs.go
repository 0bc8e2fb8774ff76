// Package btrfs speaks to the btrfs file system by its ioctls: subvolumes and
// snapshots are made, described, listed and deleted, always by descriptor and
// id. No btrfs program is needed. It knows the on-disk records that the kernel
// hands out (linux/btrfs.h, linux/btrfs_tree.h; all little-endian), and no word
// of the product. Nearly everything here needs CAP_SYS_ADMIN. A failure is the
// kernel's errno in an fs.PathError with the call and the object. The numbers
// of the calls are those of 64-bit machines with the generic encoding of ioctl
// numbers (x86, ARM, RISC-V, LoongArch, s390).
package btrfs

import (
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ids of the top-level subvolume and the range of all others
// (BTRFS_FS_TREE_OBJECTID, BTRFS_FIRST_FREE_OBJECTID, BTRFS_LAST_FREE_OBJECTID).
const (
	TopLevel uint64 = 5
	firstID  uint64 = 256
	lastID   uint64 = 1<<64 - 256
)

// The calls (linux/btrfs.h).
const (
	iocSnapCreate    = 0x50009417 // BTRFS_IOC_SNAP_CREATE_V2
	iocSubvolCreate  = 0x50009418 // BTRFS_IOC_SUBVOL_CREATE_V2
	iocSnapDestroy   = 0x5000943f // BTRFS_IOC_SNAP_DESTROY_V2
	iocStartSync     = 0x80089418 // BTRFS_IOC_START_SYNC
	iocSubvolGetFlag = 0x80089419 // BTRFS_IOC_SUBVOL_GETFLAGS
	iocSubvolSetFlag = 0x4008941a // BTRFS_IOC_SUBVOL_SETFLAGS
	iocInoLookup     = 0xd0009412 // BTRFS_IOC_INO_LOOKUP
	iocTreeSearch    = 0xc0709411 // BTRFS_IOC_TREE_SEARCH_V2
	iocFSInfo        = 0x8400941f // BTRFS_IOC_FS_INFO
	iocSubvolInfo    = 0x81f8943c // BTRFS_IOC_GET_SUBVOL_INFO
)

// Flags of BTRFS_IOC_SNAP_CREATE_V2 and its like.
const (
	flagReadOnly = 1 << 1 // BTRFS_SUBVOL_RDONLY
	flagByID     = 1 << 4 // BTRFS_SUBVOL_SPEC_BY_ID
)

// rootReadOnly is BTRFS_ROOT_SUBVOL_RDONLY: other than the flag of the calls.
const rootReadOnly = 1 << 0

// UUID is that of a file system or of a subvolume; a subvolume that is no
// snapshot has a zero one in the place of its parent's.
type UUID [16]byte

func (u UUID) String() string {
	s := hex.EncodeToString(u[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// MarshalText writes the UUID as String does.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (u *UUID) UnmarshalText(text []byte) error {
	if len(text) != 36 {
		return fmt.Errorf("%q is not an UUID", text)
	}
	plain := fmt.Appendf(nil, "%s%s%s%s%s", text[:8], text[9:13], text[14:18], text[19:23], text[24:])
	_, err := hex.Decode(u[:], plain)
	return err
}

// A FileSystem is what the whole file system says about itself.
type FileSystem struct {
	UUID       UUID // no other mounted file system has it
	OnDisk     UUID // what the blocks carry: another one after btrfstune -m, and in a copy that has a temporary UUID
	Devices    uint64
	Generation uint64 // of the last transaction that is on disk; since Linux 5.10
}

// Describe asks the file system that f lies on.
func Describe(f *os.File) (FileSystem, error) {
	var a struct {
		maxID, devices      uint64
		fsid                UUID
		node, sector, clone uint32
		csumType, csumSize  uint16
		flags               uint64
		generation          uint64
		metadataUUID        UUID
		reserved            [944]byte
	}
	a.flags = 1<<1 | 1<<2 // BTRFS_FS_INFO_FLAG_GENERATION, BTRFS_FS_INFO_FLAG_METADATA_UUID
	if err := ioctl(f, "BTRFS_IOC_FS_INFO", "", iocFSInfo, unsafe.Pointer(&a)); err != nil {
		return FileSystem{}, err
	}
	return FileSystem{UUID: a.fsid, OnDisk: a.metadataUUID, Devices: a.devices, Generation: a.generation}, nil
}

// A Subvolume is what a subvolume says about itself.
type Subvolume struct {
	ID       uint64
	UUID     UUID
	Parent   UUID // of the subvolume it is a snapshot of; zero for none
	ReadOnly bool
	Within   uint64    // id of the subvolume that holds its name
	Dir      uint64    // inode of the directory there
	Changed  uint64    // transaction of the last change of any inode in it
	Created  uint64    // transaction that made it
	Made     time.Time // when that was; for a snapshot its very instant
}

// Ask describes the subvolume that f lies in, also when f is not its root. It
// fails with ENOENT once the subvolume was deleted.
func Ask(f *os.File) (Subvolume, error) {
	type stamp struct {
		sec  uint64
		nsec uint32
		_    uint32
	}
	var a struct {
		id                                 uint64
		name                               [256]byte
		parentID, dir, generation, flags   uint64
		uuid, parent, received             UUID
		changed, created, sent, receivedID uint64
		ctime, otime, stime, rtime         stamp
		reserved                           [8]uint64
	}
	if err := ioctl(f, "BTRFS_IOC_GET_SUBVOL_INFO", "", iocSubvolInfo, unsafe.Pointer(&a)); err != nil {
		return Subvolume{}, err
	}
	return Subvolume{
		ID: a.id, UUID: a.uuid, Parent: a.parent, ReadOnly: a.flags&rootReadOnly != 0,
		Within: a.parentID, Dir: a.dir,
		Changed: a.changed, Created: a.created, Made: time.Unix(int64(a.otime.sec), int64(a.otime.nsec)),
	}, nil
}

// volArgs is struct btrfs_ioctl_vol_args_v2.
type volArgs struct {
	fd      int64
	transID uint64
	flags   uint64
	unused  [4]uint64
	name    [4040]byte // an id where flagByID is set
}

// Snapshot makes name in dir a read-only snapshot of the subvolume whose root
// source is. It writes the data that is still in memory, then waits for a
// transaction, which is the instant. It fails with ETXTBSY where a swap file
// of the subvolume is in use.
func Snapshot(source, dir *os.File, name string) error {
	a := volArgs{fd: int64(source.Fd()), flags: flagReadOnly}
	if copy(a.name[:len(a.name)-1], name) < len(name) {
		return failed("BTRFS_IOC_SNAP_CREATE_V2", name, unix.ENAMETOOLONG)
	}
	err := ioctl(dir, "BTRFS_IOC_SNAP_CREATE_V2", name, iocSnapCreate, unsafe.Pointer(&a))
	runtime.KeepAlive(source)
	return err
}

// Create makes name in dir an empty subvolume.
func Create(dir *os.File, name string) error {
	var a volArgs
	if copy(a.name[:len(a.name)-1], name) < len(name) {
		return failed("BTRFS_IOC_SUBVOL_CREATE_V2", name, unix.ENAMETOOLONG)
	}
	return ioctl(dir, "BTRFS_IOC_SUBVOL_CREATE_V2", name, iocSubvolCreate, unsafe.Pointer(&a))
}

// Delete deletes a subvolume by its id, which the kernel never gives to
// another one. top is the root of the top level, which must be writable. The
// space comes back later, and not before the last open file in it is closed.
func Delete(top *os.File, id uint64) error {
	a := volArgs{flags: flagByID}
	*(*uint64)(unsafe.Pointer(&a.name)) = id
	return ioctl(top, "BTRFS_IOC_SNAP_DESTROY_V2", fmt.Sprint(id), iocSnapDestroy, unsafe.Pointer(&a))
}

// SetReadOnly makes the subvolume whose root f is read-only, or writable.
func SetReadOnly(f *os.File, yes bool) error {
	var flags uint64
	if err := ioctl(f, "BTRFS_IOC_SUBVOL_GETFLAGS", "", iocSubvolGetFlag, unsafe.Pointer(&flags)); err != nil {
		return err
	}
	flags &^= flagReadOnly
	if yes {
		flags |= flagReadOnly
	}
	return ioctl(f, "BTRFS_IOC_SUBVOL_SETFLAGS", "", iocSubvolSetFlag, unsafe.Pointer(&flags))
}

// StartSync starts to commit the running transaction, if there is one, and
// returns when no other one can join it any more, before it is on disk.
func StartSync(f *os.File) error {
	var transaction uint64
	return ioctl(f, "BTRFS_IOC_START_SYNC", "", iocStartSync, unsafe.Pointer(&transaction))
}

func ioctl(f *os.File, call, object string, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
		runtime.KeepAlive(f)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return failed(call, object, errno)
	}
}

func failed(call, object string, err error) error {
	return &fs.PathError{Op: call, Path: object, Err: err}
}
