// Package dm takes snapshots of ext4 and XFS volumes that lie on a device of
// device-mapper (a logical volume of LVM, LUKS, or any other whose table may be
// there twice), by the kernel's own snapshot target. It speaks to the kernel only,
// and needs neither dmsetup nor LVM, nor free space in a volume group: originals go
// to a cache file on another volume.
//
// # What is laid below
//
//	before              while there are snapshots
//
//	file system         file system        snapshot, read-only ── view
//	    │                   │                 │         │
//	 origin              origin               │       store: linear, without its ends
//	 (table T)           (snapshot-origin)    │         │
//	    │                   └───────┬─────────┘       loop device
//	    │                         real (table T)        │
//	  disks                         │                 cache file, without a name
//	                              disks
//
// Prepare makes real, store and snapshot, and gives the origin its new table in one
// call: who reads or writes waits for what is under way and for nothing else, and a
// process that is killed in the call leaves the one table or the other, never a
// suspended device. The origin then works as before, until Commit makes the snapshot
// device live: from then on the kernel keeps the original of what changes. Hold
// freezes the file systems before that (package frozen), so a set is of one instant,
// and the devices hold what an unmount would leave.
//
// Release is the way back: readers that are left get errors, then the origin gets
// table T to the letter, read from real, which is the only place where it is kept.
//
// # Whose table is it?
//
// Others may change the origin meanwhile: lvextend gives it a longer table T. The
// origin's table is looked at before the instant, several times a second while the
// snapshot is held, and when it is asked whether it is good; it is lost when the
// table is not ours any more, and Release then leaves it as it is. So that no command
// of LVM comes between our look and our exchange, the volume group is locked
// meanwhile as LVM itself locks it.
//
// # A journal that is not empty
//
// A file system that is frozen has nothing in its journal, unless it was mounted
// read-only without a replay. Then the snapshot gets a layer that can be written, by
// one more snapshot device, and the journal is replayed there.
//
// # What can be taken
//
// A table of targets without state of their own: linear, striped, thin, crypt. A key
// in the kernel's keyring cannot be given to a second crypt target, so LUKS2 is taken
// only where it was opened with --disable-keyring; LVM on such a device is no
// matter, for then the origin is linear. Multipath devices are not taken where the
// file system lies directly on one: failed paths of our device would not be brought
// back. Devices with a thick snapshot of LVM are not taken either.
//
// # The cache file
//
// It has its full size at once, without blocks but for the first part, and a loop
// device over it that goes with its last user. When it is full, or cannot be
// written, the kernel gives the snapshot up and writers of the volume see nothing of
// it. When others need the room, the snapshot is given up here, its devices are taken
// away and with them the file. It never lies on a volume of the set, on one that
// stands on such a volume, or on one of which there is a snapshot by this provider:
// each would have to keep the originals of the other.
//
// # Rooms
//
// Instead of a cache file the store may be a block device that somebody else gives (Room),
// as package lvm does of the free extents of a volume group. Nothing gives way there: it
// has its full size at once. Who suspends it for longer than a moment, and so lets writers of the
// volume wait, finds it resumed.
//
// Discards are not passed down while there are snapshots: the kernel's origin target
// takes none, and fstrim says that they are not supported.
//
// # What stays on the host
//
// Nothing is on any disk. A killed process leaves devices, which are ours by their
// UUID: it says for which origin, set and process each was made, and a process is
// known by its number, its start, and the namespace of that number. The guard of the
// set takes them away at once, and the next start of the program what a guard that
// was killed, too, has not. A restart of the machine leaves nothing. udev is told to leave our devices alone, so no link and no
// scan ever takes one for the volume that it shows.
package dm
