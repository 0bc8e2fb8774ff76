// Package lvm takes snapshots of file systems on logical volumes of LVM: on thin ones in
// the pool that they lie in, and where people have named it on classic ones, by free
// extents of their volume group. It knows LVM's commands and reports, how a thin pool
// of device-mapper takes a snapshot, and which logical volumes are ours.
//
// # The way of thin volumes
//
// Prepare makes an empty thin volume beside the origin, by lvcreate: with our
// tags, not active, and not to be activated. Then it tells the pool to forget the
// volume's content, so that LVM has a volume for which the pool has nothing: a
// place. Hold freezes the file systems. Commit tells the pool to put a snapshot of
// the origin in that place (create_snap, Documentation/admin-guide/device-mapper/
// thin-provisioning.rst), which is one call to the kernel of some milliseconds. No
// program runs in the window, all volumes of a set show one instant, and LVM knows
// from the beginning what there is and can remove it: for lvremove a volume that
// the pool does not have is removed already (expected_errno of a message in
// libdm-deptree.c).
//
// The kernel asks that an active origin be suspended while a snapshot of it is
// taken, since a write under way might reach a block that the two then share.
// Of a frozen file system there is none: a freeze waits for all of them. And so a
// kill never leaves a device suspended, only file systems frozen, which the guard
// thaws.
//
// A frozen file system's snapshot holds everything that was written before the
// instant, durable or not.
//
// # How it is shown
//
// The volume is not activated by LVM, whose udev flags cannot be chosen: /dev/disk/
// by-uuid would lead to the snapshot. We make two devices ourselves, marked so
// that udev's rules leave them alone. One stands for the volume, with the name and
// UUID that LVM would give its device, and is a few sectors of zeros. The other
// one has the snapshot and behind its end the first, so that LVM finds the volume
// in use and refuses to remove it behind our back (and warns, in lvs, that the device
// is not what it expects). It is what is mounted; its UUID is one that libblkid does
// not scan; and while somebody still has a file open it can be cut off from both.
//
// # What stays after a kill
//
// The logical volume, and perhaps those devices, until the guard of the set removes
// them, which is at once; or, where that was killed, too, the next start. The tags say which set it is of,
// which volume, by which process of which boot of which machine; and a digest of
// that with the volume group's UUID, the origin's and the name shows that the tags
// belong to it. After a power cut it is an inactive volume, which LVM does not
// activate at boot.
//
// # What it will not do
//
// Fill the pool, and so stop every volume in it: with too little room, in data or
// metadata, no snapshot is taken, and one that is there is given up when room gets
// short, whoever fills the pool. Run a command while another one hangs: until that has
// ended, LVM is not asked any more in this process. Take volumes that are not thin unless people
// want that: they are for device-mapper.
//
// # The way of classic volumes
//
// Prepare makes a room of the group's free extents: a logical volume like any other, with our
// tags, that is not activated at boot. The originals of what changes go there, and
// all else is package dm's, which lays devices of its own below the volume and freezes it.
// LVM's own snapshots are not used: to make and to remove one it suspends the live volume,
// for ever if it is killed then; and one that outlives a power cut is part of its origin
// at the next boot.
//
// Rooms are in use by what is laid over them, so LVM does not remove them. When one is full
// the snapshot is lost, and the room given back. Thin and classic volumes of a set are
// held together and show one instant.
package lvm
