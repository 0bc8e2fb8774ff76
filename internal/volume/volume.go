// Package volume says what is mounted on this host and what lies below it:
// identity, type, device stack, sizes, options, nested mounts and bind mounts.
// It reads /proc, /sys, the data of udev and a few ioctls, runs no programs,
// waits for no dead server, and returns plain values. It does not know that
// snapshots exist: it never says "supported", only "is".
package volume

// ID names a volume for as long as its file system lives, whatever device
// number or mount point it gets: "UUID" of the file system, for btrfs
// "UUID/SUBVOLUME-ID", for ZFS "zfs:DATASET"; file systems without an UUID are
// "FSTYPE:MAJOR:MINOR", which lasts until they are unmounted. Where two mounted
// file systems have the same UUID, because one is a block-wise copy of the
// other, the first in mountinfo keeps it (of btrfs the one that the kernel calls
// so) and the others are "UUID@MAJOR:MINOR".
type ID string

// Kind tells volumes apart by where their data lives.
type Kind string

// The kinds. Only Local volumes hold data that a snapshot can be taken of.
const (
	Local   Kind = "local"   // a file system on block devices of this host
	EFI     Kind = "efi"     // the EFI system partition: local, but firmware reads it
	Memory  Kind = "memory"  // tmpfs, ramfs, any file system on a RAM disk: gone at the next boot
	Network Kind = "network" // NFS, CIFS, Ceph, sshfs …: the data is elsewhere
	Virtual Kind = "virtual" // proc, sysfs, cgroup …: no data at all
	Stacked Kind = "stacked" // overlay, other FUSE: shows what lies in other volumes
)

// A Volume is one mounted file system; of btrfs, one subvolume.
type Volume struct {
	ID        ID
	Kind      Kind
	FSType    string     // as in mountinfo: "btrfs", "ext4", "fuse.sshfs"
	UUID      string     // of the file system, lower case; may be empty; only read of Local and EFI
	Label     string     // may be empty
	Source    string     // as in mountinfo: usually the path of a device
	Device    string     // "MAJOR:MINOR" as in mountinfo; anonymous (0:N) for btrfs, ZFS, network; of btrfs it is not st_dev
	Subvolume *Subvolume // btrfs only
	Stack     []Device   // the block devices below, nearest first; empty where there are none, and for ZFS
	Size      uint64     // bytes; sizes are 0 for Network, Virtual and Stacked, which are not asked
	Free      uint64     // bytes that an unprivileged writer may use
	Used      uint64     // bytes
	ReadOnly  bool       // the superblock is read-only: nothing can change
	Options   []string   // of the superblock, as the first mount shows them
	Mounts    []Mount    // every place where it shows, in the order of mountinfo; at least one
}

// A Subvolume says which part of a btrfs a volume is.
type Subvolume struct {
	ID   uint64 // 5 is the top level
	Path string // from the top level, "/" for the top level itself; empty once the subvolume is deleted
}

// A Mount is one place in the tree of paths at which a volume shows.
type Mount struct {
	ID       int    // of mountinfo
	Parent   int    // ID of the mount below this one
	Point    string // the live path
	Root     string // what part of the volume shows: "/" is all of it, "/a/b" a bind mount of that directory or file
	Hidden   bool   // another mount covers it: Point leads elsewhere
	Deleted  bool   // that directory or file was deleted since: no path of the volume leads to what shows here
	ReadOnly bool
	Options  []string // of the mount
}

// A Device is one block device in the stack below a volume.
type Device struct {
	Name   string // as the kernel says: "dm-0", "sda1", "md0"
	Number string // "MAJOR:MINOR"
	Type   string // "disk", "part", "lvm", "crypt", "mpath", "dm", "md", "loop", "rom", "ram"
	DMName string // of device-mapper devices, "vg-lv"
	File   string // of loop devices, the backing file: a path on another volume
	Level  int    // 0 carries the file system; its parts are 1, theirs 2 …
	Size   uint64 // bytes
}

// A Swap is an area that the kernel swaps to. It is no volume, but what lies
// in it changes without notice.
type Swap struct {
	Path     string // the device or file
	File     bool   // a file on a volume, not a device
	Size     uint64 // bytes
	Used     uint64 // bytes
	Priority int
	Stack    []Device // of a device: itself, and what is below
}

// A Mounted is a volume at one of its places.
type Mounted struct {
	Volume Volume
	Mount  Mount
}
